"""Costs of attention whose cache evicts: of a sequence those of full attention, of a token those of what is kept."""

from __future__ import annotations

from archsearch.attention_cost import (
    kv_cache,
    kv_heads_of,
    kv_traffic,
    projection_flops,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import EvictingOptions


def evicting_flops(options: EvictingOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections, and softmax over all tokens so far or, decoding, over what is kept and the token itself; but in
    training an operation for each weight that is summed."""
    token = projection_flops(shape, n_kv_heads=options.n_kv_heads, rope=options.rope)
    pairs = min(context, options.kept + 1) if phase == "decode" else visible_pairs(context)
    summed = Flops(elementwise=pairs * shape.n_heads) if phase != "train" else Flops()
    return token * (1 if phase == "decode" else context) + softmax_flops(pairs, shape) + summed


def evicting_state(options: EvictingOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Keys and values that are kept, and of each what was attended to it and its index in the sequence, a whole number
    as float32 (up to 2^24 tokens)."""
    row, cap = (kv_heads_of(options.n_kv_heads, shape),), options.kept
    score = StateTensor(name="score", row_shape=row, dtype="float32", role="summary", stride=1, cap=cap)
    order = StateTensor(name="order", row_shape=row, dtype="float32", role="index", stride=1, cap=cap)
    return (*kv_cache(shape, n_kv_heads=options.n_kv_heads, cap=cap), score, order)


def evicting_traffic(options: EvictingOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Every row that is kept, each of which gets a new score, and the new one in place of that which is evicted."""
    before = min(context - 1, options.kept)
    kv = kv_traffic(min(context, options.kept + 1), shape, n_kv_heads=options.n_kv_heads)
    scored = min(context, options.kept)  # the evicted one's score is the new one's
    heads = 4.0 * kv_heads_of(options.n_kv_heads, shape)
    full = context > options.kept  # else none is evicted, and no index is asked for
    return Traffic(
        read_bytes=kv.read_bytes + before * (1 + full) * heads,
        written_bytes=kv.written_bytes + (scored + 1) * heads,
    )
