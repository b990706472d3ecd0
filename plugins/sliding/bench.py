"""Window attention as `archsearch bench kernels` measures it: over sequences, and one token over its ring."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, reference_form
from archsearch.bench.peers import block_mask, flex_peer, sdpa_step_peer, tiles_of
from archsearch.bench.results.work import Shape, cache_work, causal_work
from archsearch.ops.laid_out import LaidOut

from .ops import window_attention, window_attention_step

WINDOW, TINY_WINDOW = 4096, 24


def bench_ops() -> Iterator[BenchOp]:
    """The window on its grids, a narrow one on the smallest, and the step."""
    for window, grids in (
        (WINDOW, {FULL: [_shape(1, 65536), _shape(1, 16384)], QUICK: [_shape(1, 65536)], TINY: []}),
        (TINY_WINDOW, {FULL: [], QUICK: [], TINY: [_tiny(80)]}),
    ):
        yield BenchOp(
            name="window",
            sizes={"window": window},
            grids=grids,
            inputs=_inputs,
            run=partial(_run, window),
            reference=partial(_reference, window),
            work=partial(causal_work, window=window),
            trained=("q", "k", "v"),
            head_axes={"q": 2, "k": 2, "v": 2},
            table="window_attention",
            peers=(flex_peer(partial(window_mask, window)),),
        )
    yield BenchOp(
        name="window",
        step=True,
        inputs=_step_inputs,
        run=_step,
        reference=partial(_step, impl="reference"),
        work=cache_work,
        head_axes={"q": 1, "k": 2, "v": 2},
        table="window_attention",
        peers=(sdpa_step_peer(),),
        grids={FULL: [_shape(32, WINDOW), _shape(1, WINDOW)], QUICK: [_shape(32, WINDOW)], TINY: [_tiny(24)]},
    )


def window_mask(window: int, inputs: Inputs) -> Any:
    """FlexAttention's mask of the band: the tiles that it touches, and which keys inside of them are seen."""
    tokens, device = inputs["q"].shape[1], inputs["q"].device
    index = torch.arange(tiles_of(tokens), device=device)
    first = ((index * 128 - window + 1).clamp(min=0) // 128)[:, None]
    seen = (index[None] <= index[:, None]) & (index[None] >= first)

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query - key < window)

    return block_mask(seen[None, None], visible)


def _shape(batch: int, tokens: int) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=16, kv_heads=16, head_dim=128)


def _tiny(tokens: int) -> Shape:
    return Shape(batch=2, tokens=tokens, heads=4, kv_heads=2, head_dim=16)


def _inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    counts = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    return {name: draw.normal(shape.batch, shape.tokens, count, shape.head_dim) for name, count in counts.items()}


def _step_inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    inputs = _inputs(shape, draw)
    lengths = torch.full((shape.batch,), 3 * shape.tokens, device=draw.device)
    return {**inputs, "q": draw.normal(shape.batch, shape.heads, shape.head_dim), "lengths": lengths}


def _run(window: int, inputs: Inputs, impl: str) -> Outputs:
    return (window_attention(LaidOut(inputs["q"], inputs["k"], inputs["v"]), window=window, impl=impl),)


def _reference(window: int, inputs: Inputs) -> Outputs:
    return _run(window, inputs, reference_form(inputs))


def _step(inputs: Inputs, impl: str) -> Outputs:
    return (window_attention_step(inputs["q"], inputs["k"], inputs["v"], inputs["lengths"], impl=impl),)
