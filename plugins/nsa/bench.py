"""Native sparse attention as `archsearch bench kernels` measures it: over sequences, and one token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from archsearch.attention_cost import projection_flops
from archsearch.bench.choices import stand_in_choices
from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, reference_form
from archsearch.bench.peers import sdpa_peers
from archsearch.bench.results.work import Shape, Work, softmax_io, token_io
from archsearch.mixer import Phase
from archsearch.ops.block_sparse import block_means
from archsearch.ops.laid_out import LaidOut

from .cost import nsa_flops, nsa_traffic
from .ops import nsa_attention
from .options import NsaOptions
from .step import NsaCache, nsa_attention_step

USUAL = NsaOptions(block_size=64, top_k=16, window=512, rope=0.0)
SMALL = NsaOptions(block_size=8, top_k=4, window=12, rope=0.0)

AGREEING = 0.92
"""Share of rows whose choice the rounding of means to bfloat16 leaves alone: 0.96 of random ones at 64k tokens, where
14 of 1023 blocks are chosen."""


def bench_ops() -> Iterator[BenchOp]:
    """Blocks of 64 of which 16 are chosen and a window of 512, 16 query heads a key head; small ones on the smallest
    grid."""
    full, step = [_shape(1, 65536, 2), _shape(1, 16384, 2)], [_shape(16, 65536, 2), _shape(1, 65536, 2)]
    for options, grids, steps in (
        (USUAL, {FULL: full, QUICK: full[:1], TINY: []}, {FULL: step, QUICK: step[:1], TINY: []}),
        (SMALL, {FULL: [], QUICK: [], TINY: [_tiny()]}, {FULL: [], QUICK: [], TINY: [_tiny()]}),
    ):
        sizes = asdict(options.sizes)
        yield BenchOp(
            name="nsa",
            sizes=sizes,
            grids=grids,
            inputs=_inputs,
            run=partial(_run, options),
            reference=partial(_reference, options),
            work=partial(nsa_work, options),
            agreeing=AGREEING,
            stand_ins={"choose_important": stand_in_choices},
            table="nsa_attention",
            trained=("q", "k", "v", "gates"),
            head_axes={"q": 2, "k": 2, "v": 2, "gates": 2},
            peers=sdpa_peers(same=False),
        )
        yield BenchOp(
            name="nsa",
            step=True,
            sizes=sizes,
            grids=steps,
            inputs=partial(_step_inputs, options),
            agreeing=AGREEING,
            run=partial(_step, options),
            reference=partial(_step, options, impl="chunkwise"),
            work=partial(nsa_step_work, options),
            table="nsa_attention",
            head_axes={"q": 1, "k": 2, "v": 2, "k_means": 2, "v_means": 2, "gates": 1},
        )


def nsa_work(options: NsaOptions, shape: Shape, element_bytes: int) -> Work:
    """The three branches: 4 D a query head and pair of query and mean, chosen key, key of the window."""
    read, written = softmax_io(shape, element_bytes)
    gates = 3.0 * shape.total * shape.heads * element_bytes
    flops = shape.batch * core_flops(options, shape, "prefill")
    return Work(flops=flops, read_bytes=read + gates, written_bytes=written)


def nsa_step_work(options: NsaOptions, shape: Shape, element_bytes: int) -> Work:
    """The means, and the rows of the chosen blocks and of the window, none of them twice."""
    token = token_io(shape, element_bytes)
    rows = nsa_traffic(options, shape.model(element_bytes), context=shape.tokens).read_bytes
    flops = shape.batch * core_flops(options, shape, "decode")
    return Work(flops=flops, read_bytes=shape.batch * rows + token, written_bytes=token)


def core_flops(options: NsaOptions, shape: Shape, phase: Phase) -> float:
    """Matrix products of one sequence without the projections around them and of the gates."""
    sizes, tokens = shape.model(), 1 if phase == "decode" else shape.tokens
    around = projection_flops(sizes).matmul + 2.0 * sizes.d_model * 3 * sizes.n_heads
    return nsa_flops(options, sizes, phase=phase, context=shape.tokens).matmul - tokens * around


def _shape(batch: int, tokens: int, kv_heads: int) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=16 * kv_heads, kv_heads=kv_heads, head_dim=128)


def _tiny() -> Shape:
    return Shape(batch=2, tokens=60, heads=4, kv_heads=2, head_dim=16)


def _inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    counts = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    inputs = {name: draw.normal(shape.batch, shape.tokens, count, shape.head_dim) for name, count in counts.items()}
    return {**inputs, "gates": draw.uniform(shape.batch, shape.tokens, shape.heads, 3).to(draw.dtype)}


def _step_inputs(options: NsaOptions, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    inputs = _inputs(shape, draw)
    return {
        **inputs,
        "q": draw.normal(shape.batch, shape.heads, shape.head_dim),
        "gates": inputs["gates"][:, -1],
        "k_means": block_means(inputs["k"], options.block_size),
        "v_means": block_means(inputs["v"], options.block_size),
        "lengths": torch.full((shape.batch,), shape.tokens, device=draw.device),
    }


def _run(options: NsaOptions, inputs: Inputs, impl: str) -> Outputs:
    q, k, v, gates = (inputs[name] for name in ("q", "k", "v", "gates"))
    return (nsa_attention(LaidOut(q, k, v), gates=gates, sizes=options.sizes, impl=impl),)


def _reference(options: NsaOptions, inputs: Inputs) -> Outputs:
    return _run(options, inputs, reference_form(inputs))


def _step(options: NsaOptions, inputs: Inputs, impl: str) -> Outputs:
    cache = NsaCache(**{name: inputs[name] for name in ("k", "v", "k_means", "v_means", "lengths")})
    return (nsa_attention_step(inputs["q"], cache, gates=inputs["gates"], sizes=options.sizes, impl=impl),)
