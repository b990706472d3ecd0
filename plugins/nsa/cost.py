"""Costs of native sparse attention."""

from __future__ import annotations

from archsearch.amounts import SIGMOID
from archsearch.attention_cost import (
    chosen_pairs,
    chosen_rows,
    kv_cache,
    kv_traffic,
    projection_flops,
    projection_params,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import NsaOptions


def nsa_params(shape: ModelShape) -> int:
    """Projections, and three gates a query head."""
    return projection_params(shape) + 3 * shape.d_model * shape.n_heads


def nsa_flops(options: NsaOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections, gates, block means, and the three branches: 4 D of matrix product a pair and query head in each."""
    b, k, window = options.block_size, options.top_k, options.window
    if phase == "decode":
        tokens, means = 1, context // b
        pairs = float(means + chosen_rows(context, b, k) + min(context, window))
    else:
        tokens, means = context, _complete_means(context, b)
        pairs = means + chosen_pairs(context, b, k) + visible_pairs(context, window)
    token = projection_flops(shape, rope=options.rope) + _token_flops(shape)
    ranking = Flops(elementwise=float(means * (shape.n_heads + shape.n_kv_heads))) if k > 2 else Flops()
    return token * tokens + softmax_flops(pairs, shape) + ranking


def nsa_traffic(options: NsaOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Rows that a decoded token reads: the means of complete blocks, the chosen blocks and the window, no row twice.

    Blocks whose choice depends on the data are counted as outside of the window as far as there are such.
    """
    means = context // options.block_size
    mean_bytes = kv_traffic(0, shape).written_bytes
    kv = kv_traffic(_distinct_rows(context, options.block_size, options.top_k, options.window), shape)
    completes = context % options.block_size == 0
    return kv + Traffic(read_bytes=means * mean_bytes, written_bytes=mean_bytes if completes else 0.0)


def nsa_state(options: NsaOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Keys and values, and the mean key and value of each block."""
    row = (shape.n_kv_heads, shape.head_dim)
    key, value = (
        StateTensor(name=name, row_shape=row, dtype=shape.dtype, role="summary", stride=options.block_size)
        for name in ("k_mean", "v_mean")
    )
    return (*kv_cache(shape), key, value)


def _token_flops(shape: ModelShape) -> Flops:
    """Gates, sums of the means, and the gated sum of the branches."""
    gates = 3 * shape.n_heads
    sums = (2.0 * shape.n_kv_heads + 5.0 * shape.n_heads) * shape.head_dim
    return Flops(matmul=2.0 * shape.d_model * gates, elementwise=sums) + SIGMOID * float(gates)


def _complete_means(context: int, block_size: int) -> int:
    """Pairs of a token and a block that is complete for it, over a sequence: T^2 / (2 b) at length."""
    blocks, rest = divmod(context, block_size)
    return block_size * (blocks * (blocks - 1) // 2) + blocks * (rest + 1)


def _distinct_rows(context: int, block_size: int, top_k: int, window: int) -> int:
    """Rows of the window, the own block, block 0, and of the other chosen blocks what can be outside of the window."""
    past, inside = divmod(context - 1, block_size)
    beyond = max(0, context - max(window, inside + 1))  # rows before the window and the own block
    first = min(block_size, beyond) if top_k > 1 and past else 0
    others = min(max(0, min(top_k, past + 1) - 2) * block_size, beyond - first)
    return context - beyond + first + others
