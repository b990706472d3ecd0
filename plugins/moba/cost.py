"""Costs of mixture of block attention."""

from __future__ import annotations

from archsearch.attention_cost import (
    chosen_pairs,
    chosen_rows,
    kv_cache,
    kv_traffic,
    projection_flops,
    softmax_flops,
)
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic


def moba_flops(shape: ModelShape, *, phase: Phase, context: int, block_size: int, top_k: int, rope: float) -> Flops:
    """Projections, block means, block scores (2 D of matrix product and a comparison each), the chosen attention."""
    if phase == "decode":
        tokens, pairs = 1, float(chosen_rows(context, block_size, top_k))
        scored = _scored_blocks((context - 1) // block_size, top_k)
    else:
        tokens, pairs = context, chosen_pairs(context, block_size, top_k)
        scored = _scored_means(context, block_size, top_k)
    token = projection_flops(shape, rope=rope)
    if top_k > 1:
        token += Flops(elementwise=float(shape.n_kv_heads * shape.head_dim))
    ranking = Flops(matmul=2.0 * scored * shape.n_heads * shape.head_dim, elementwise=float(scored * shape.n_heads))
    return token * tokens + ranking + softmax_flops(pairs, shape)


def moba_traffic(shape: ModelShape, *, context: int, block_size: int, top_k: int) -> Traffic:
    """Rows that a decoded token reads: its own block so far, the chosen blocks, and the means when there is a choice.

    The query heads of a key head may all choose apart: it is counted so, up to all blocks that there are.
    """
    past, inside = divmod(context - 1, block_size)
    chosen = min(past, shape.n_heads // shape.n_kv_heads * (top_k - 1))
    kv = kv_traffic(inside + 1 + chosen * block_size, shape)
    mean_bytes = float(shape.n_kv_heads * shape.head_dim * shape.dtype_bytes)
    completes = top_k > 1 and context % block_size == 0
    return kv + Traffic(
        read_bytes=_scored_blocks(past, top_k) * mean_bytes, written_bytes=mean_bytes if completes else 0.0
    )


def moba_state(shape: ModelShape, *, block_size: int, top_k: int) -> tuple[StateTensor, ...]:
    """Keys and values, and the mean key of each block; none where the own block is the only choice."""
    kv = kv_cache(shape)
    if top_k == 1:
        return kv
    row = (shape.n_kv_heads, shape.head_dim)
    return (*kv, StateTensor(name="mean", row_shape=row, dtype=shape.dtype, role="summary", stride=block_size))


def _scored_blocks(past: int, top_k: int) -> int:
    """Past blocks that a token ranks: none where it takes them all, or none of them."""
    return past if 1 < top_k <= past else 0


def _scored_means(context: int, block_size: int, top_k: int) -> int:
    """The same summed over a sequence."""
    blocks, rest = divmod(context, block_size)
    ranking = max(0, blocks * (blocks - 1) - top_k * (top_k - 1)) // 2 if top_k > 1 else 0
    return ranking * block_size + rest * _scored_blocks(blocks, top_k)
