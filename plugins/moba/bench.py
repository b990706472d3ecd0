"""Mixture of block attention as `archsearch bench kernels` measures it: over sequences, and one token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.attention_cost import projection_flops
from archsearch.bench.choices import stand_in_choices
from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, reference_form
from archsearch.bench.peers import block_mask, flex_peer, sdpa_peers, tiles_of
from archsearch.bench.results.work import Shape, Work, softmax_io, token_io
from archsearch.mixer import Phase
from archsearch.ops.block_cache import BlockCache
from archsearch.ops.block_sparse import block_means
from archsearch.ops.laid_out import LaidOut

from .cost import moba_flops, moba_traffic
from .ops import choose_blocks, moba_attention, moba_attention_step

BLOCK, TOP = 512, 3
_CHUNK = 4096

AGREEING = 0.98
"""Share of the query heads' rows whose choice the rounding of means to bfloat16 leaves alone: 0.995 of random ones at
128k tokens."""


def bench_ops() -> Iterator[BenchOp]:
    """Blocks of 512 of which three are seen, on the smallest grid of 8."""
    full, step = [_shape(1, 131072), _shape(1, 32768)], [_shape(8, 131072), _shape(1, 131072), _shape(1, 2**20)]
    for block, grids, steps in (
        (BLOCK, {FULL: full, QUICK: full[:1], TINY: []}, {FULL: step, QUICK: step[:1], TINY: []}),
        (8, {FULL: [], QUICK: [], TINY: [_tiny()]}, {FULL: [], QUICK: [], TINY: [_tiny()]}),
    ):
        sizes = {"block_size": block, "top_k": TOP}
        yield BenchOp(
            name="moba",
            sizes=sizes,
            grids=grids,
            inputs=_inputs,
            run=partial(_run, block),
            reference=partial(_reference, block),
            work=partial(moba_work, block, TOP),
            agreeing=AGREEING,
            stand_ins={"choose_past": stand_in_choices},
            table="moba_attention",
            trained=("q", "k", "v"),
            head_axes={"q": 2, "k": 2, "v": 2},
            peers=(*sdpa_peers(same=False), flex_peer(partial(chosen_mask, block, TOP))),
        )
        yield BenchOp(
            name="moba",
            step=True,
            sizes=sizes,
            grids=steps,
            inputs=partial(_step_inputs, block),
            agreeing=AGREEING,
            run=partial(_step, block),
            reference=partial(_step, block, impl="chunkwise"),
            work=partial(moba_step_work, block, TOP),
            table="moba_attention",
            head_axes={"q": 1, "k": 2, "v": 2, "means": 2},
        )


def moba_work(block_size: int, top_k: int, shape: Shape, element_bytes: int) -> Work:
    """Ranking of the past blocks by their means, and attention over the chosen ones."""
    read, written = softmax_io(shape, element_bytes)
    flops = shape.batch * core_flops(block_size, top_k, shape, "prefill")
    return Work(flops=flops, read_bytes=read, written_bytes=written)


def moba_step_work(block_size: int, top_k: int, shape: Shape, element_bytes: int) -> Work:
    """The means, the own block so far, and the chosen blocks, which the heads of a key head may choose apart."""
    token = token_io(shape, element_bytes)
    rows = moba_traffic(shape.model(element_bytes), context=shape.tokens, block_size=block_size, top_k=top_k).read_bytes
    flops = shape.batch * core_flops(block_size, top_k, shape, "decode")
    return Work(flops=flops, read_bytes=shape.batch * rows + token, written_bytes=token)


def core_flops(block_size: int, top_k: int, shape: Shape, phase: Phase) -> float:
    """Matrix products of one sequence without the projections around them."""
    sizes, tokens = shape.model(), 1 if phase == "decode" else shape.tokens
    whole = moba_flops(sizes, phase=phase, context=shape.tokens, block_size=block_size, top_k=top_k, rope=0.0)
    return whole.matmul - tokens * projection_flops(sizes).matmul


def chosen_mask(block_size: int, top_k: int, inputs: Inputs) -> Any:
    """FlexAttention's mask of the blocks that each query chose: a tile of 128 queries looks at all that one of them
    did. The choice is made here, outside of the time."""
    q, tokens = inputs["q"], inputs["q"].shape[1]
    batch, heads, count = q.shape[0], q.shape[2], -(-tokens // block_size)
    seen = torch.zeros(batch, heads, tokens, count + 1, dtype=torch.bool, device=q.device)
    means = block_means(inputs["k"], block_size)
    for start in range(0, tokens, _CHUNK):
        own = torch.arange(start, min(tokens, start + _CHUNK), device=q.device) // block_size
        part = choose_blocks(q[:, start : start + _CHUNK], means, own.expand(batch, -1), top_k)
        seen[:, :, start : start + _CHUNK].scatter_(3, torch.where(part < 0, count, part), True)

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & seen[b, h, query, key // block_size]

    return block_mask(_touched(seen[..., :count], block_size), visible)


def _touched(seen: Tensor, block_size: int) -> Tensor:
    """Tiles `[B, H, n, n]` of 128 queries and keys that hold a seen pair, of `seen` `[B, H, T, blocks]`."""
    batch, heads, tokens, count = seen.shape
    tiles = tiles_of(tokens)
    padded = torch.nn.functional.pad(seen, (0, 0, 0, tiles * 128 - tokens))
    by_tile = padded.view(batch, heads, tiles, 128, count).any(3)
    keys = torch.arange(tiles * 128, device=seen.device) // block_size
    of_key = by_tile[..., keys.clamp(max=count - 1)] & (keys < count)
    touched = of_key.view(batch, heads, tiles, tiles, 128).any(-1)
    return touched & torch.ones(tiles, tiles, dtype=torch.bool, device=seen.device).tril()


def _shape(batch: int, tokens: int) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=16, kv_heads=16, head_dim=128)


def _tiny() -> Shape:
    return Shape(batch=2, tokens=60, heads=4, kv_heads=2, head_dim=16)


def _inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    counts = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    return {name: draw.normal(shape.batch, shape.tokens, count, shape.head_dim) for name, count in counts.items()}


def _step_inputs(block: int, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    inputs = _inputs(shape, draw)
    return {
        **inputs,
        "q": draw.normal(shape.batch, shape.heads, shape.head_dim),
        "means": block_means(inputs["k"], block),
        "lengths": torch.full((shape.batch,), shape.tokens, device=draw.device),
    }


def _run(block: int, inputs: Inputs, impl: str) -> Outputs:
    return (moba_attention(LaidOut(inputs["q"], inputs["k"], inputs["v"]), block_size=block, top_k=TOP, impl=impl),)


def _reference(block: int, inputs: Inputs) -> Outputs:
    return _run(block, inputs, reference_form(inputs))


def _step(block: int, inputs: Inputs, impl: str) -> Outputs:
    cache = BlockCache(**{name: inputs[name] for name in ("k", "v", "means", "lengths")})
    return (moba_attention_step(inputs["q"], cache, block_size=block, top_k=TOP, impl=impl),)
