"""Full attention as `archsearch bench kernels` measures it: whole sequences, packed ones, one token over its cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, reference_form
from archsearch.bench.peers import sdpa_peers, sdpa_step_peer
from archsearch.bench.results.work import Shape, cache_work, causal_work
from archsearch.ops.laid_out import LaidOut

from .ops import full_attention, full_attention_step


def bench_ops() -> Iterator[BenchOp]:
    """All three; the packed sequences are of one length, so that peers take them as a batch."""
    yield BenchOp(
        name="full",
        inputs=_inputs,
        run=_run,
        reference=lambda inputs: _run(inputs, reference_form(inputs)),
        work=causal_work,
        trained=("q", "k", "v"),
        head_axes={"q": 2, "k": 2, "v": 2},
        forms=("chunkwise", "chunkwise"),
        peers=sdpa_peers(same=True),
        grids={
            FULL: [_shape(1, 16384, 16), _shape(1, 65536, 16)],
            QUICK: [_shape(1, 16384, 16)],
            TINY: [Shape(batch=2, tokens=40, heads=4, kv_heads=2, head_dim=16)],
        },
    )
    yield BenchOp(
        name="packed",
        inputs=_inputs,
        run=_run_packed,
        table="full_attention",
        reference=lambda inputs: _run(inputs, reference_form(inputs)),
        work=causal_work,
        trained=("q", "k", "v"),
        head_axes={"q": 2, "k": 2, "v": 2},
        peers=sdpa_peers(same=True),
        grids={
            FULL: [_shape(64, 1024, 16), _shape(8, 8192, 16)],
            QUICK: [_shape(64, 1024, 16)],
            TINY: [Shape(batch=3, tokens=20, heads=4, kv_heads=2, head_dim=16)],
        },
    )
    yield BenchOp(
        name="full",
        step=True,
        inputs=_step_inputs,
        run=_step,
        table="full_attention",
        reference=lambda inputs: _step(inputs, "reference"),
        work=cache_work,
        head_axes={"q": 1, "k": 2, "v": 2},
        peers=(sdpa_step_peer(),),
        grids={
            FULL: [
                _shape(1, 131072, 16),
                Shape(batch=64, tokens=8192, heads=32, kv_heads=8, head_dim=128),
                _shape(1, 8192, 16),
            ],
            QUICK: [_shape(1, 131072, 16)],
            TINY: [Shape(batch=2, tokens=40, heads=4, kv_heads=2, head_dim=16)],
        },
    )


def _shape(batch: int, tokens: int, heads: int) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=heads, kv_heads=heads, head_dim=128)


def _inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    counts = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    return {name: draw.normal(shape.batch, shape.tokens, count, shape.head_dim) for name, count in counts.items()}


def _step_inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    inputs = _inputs(shape, draw)
    lengths = torch.full((shape.batch,), shape.tokens, device=draw.device)
    return {**inputs, "q": draw.normal(shape.batch, shape.heads, shape.head_dim), "lengths": lengths}


def _run(inputs: Inputs, impl: str) -> Outputs:
    return (full_attention(LaidOut(inputs["q"], inputs["k"], inputs["v"]), impl=impl),)


def _run_packed(inputs: Inputs, impl: str) -> Outputs:
    """The sequences of the batch end to end."""
    q, k, v = (inputs[name].flatten(0, 1)[None] for name in ("q", "k", "v"))
    count, tokens = inputs["q"].shape[:2]
    bounds = torch.arange(count + 1, device=q.device) * tokens
    out = full_attention(LaidOut(q, k, v, cu_seqlens=bounds), impl=impl)
    return (out[0].unflatten(0, (count, tokens)),)


def _step(inputs: Inputs, impl: str) -> Outputs:
    return (full_attention_step(inputs["q"], inputs["k"], inputs["v"], inputs["lengths"], impl=impl),)
