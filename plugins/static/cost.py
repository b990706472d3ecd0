"""Costs of attention under a static pattern: pairs of blocks, and what is kept of the cache."""

from __future__ import annotations

from archsearch.attention_cost import (
    kv_cache,
    kv_traffic,
    projection_flops,
    projection_params,
    rotary_dim,
    softmax_flops,
)
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import StaticOptions


def seen_pairs(options: StaticOptions, context: int) -> float:
    """Pairs of query and visible key of a sequence: whole earlier blocks, and b (b + 1) / 2 of each own one."""
    size = options.block_size
    blocks, rest = divmod(context, size)
    settled = options.first + options.reach + options.random  # from this block on all see as many
    full = sum(options.earlier(block) for block in range(min(blocks, settled)))
    full += max(0, blocks - settled) * options.earlier(settled)
    earlier = full * size * size + rest * size * options.earlier(blocks)
    return earlier + (blocks * size * (size + 1) + rest * (rest + 1)) / 2


def seen_rows(options: StaticOptions, context: int) -> int:
    """Keys that the last of `context` tokens sees."""
    own, inside = divmod(context - 1, options.block_size)
    return options.earlier(own) * options.block_size + inside + 1


def static_flops(options: StaticOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections of each token, and softmax attention over the pairs of the pattern; of queries of two parts both meet
    a key, one of them zeros."""
    token, tokens, pairs = projection_flops(shape, rope=options.rope), context, seen_pairs(options, context)
    if phase == "decode":
        tokens, pairs = 1, seen_rows(options, context)
    found = token * tokens + softmax_flops(pairs, shape)
    if not options.first_projections:
        return found
    turned = (shape.n_heads + shape.n_kv_heads) * rotary_dim(options.rope, shape.head_dim)
    found += Flops(matmul=2.0 * first_params(options, shape), elementwise=3.0 * turned) * tokens
    return found + Flops(matmul=2.0 * pairs * shape.n_heads * shape.head_dim)


def static_params(options: StaticOptions, shape: ModelShape) -> int:
    """Of the projections."""
    return projection_params(shape) + first_params(options, shape)


def first_params(options: StaticOptions, shape: ModelShape) -> int:
    """Of q, k and v of the first blocks' own."""
    return shape.d_model * (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim * options.first_projections


def kept_rows(options: StaticOptions) -> int | None:
    """Rows of the cache at most: the first blocks, and a ring of those that the window reaches, the own one included.

    None where blocks are drawn: any token may be asked for again, so that all are kept.
    """
    return (options.first + options.reach + 1) * options.block_size if options.bounded else None


def static_state(options: StaticOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """A key and a value row for each token that is kept."""
    return kv_cache(shape, cap=kept_rows(options))


def static_traffic(options: StaticOptions, shape: ModelShape, *, context: int) -> Traffic:
    """The rows that the token sees, and its own."""
    return kv_traffic(seen_rows(options, context), shape)


def dense_up_to(options: StaticOptions) -> int:
    """Tokens up to which the last one sees all."""
    block = 0
    while options.earlier(block + 1) == block + 1:
        block += 1
    return (block + 1) * options.block_size
