"""Costs of what is attended to: keys and values of heads, or latents that these are made from."""

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

from .options import IndexedOptions


def attended_params(options: IndexedOptions, shape: ModelShape) -> int:
    """Projections, and what scales queries; of latents their norm too."""
    scaled = 2 * shape.n_heads if options.query_scale else 0
    scaled += frequencies(options, shape)
    if options.kv_rank:
        return _latent_weights(options, shape) + options.kv_rank + options.q_rank + scaled
    return projection_params(shape, qk_norm=options.qk_norm, output_gate=options.output_gate) + scaled


def attended_token(options: IndexedOptions, shape: ModelShape) -> Flops:
    """Of one token outside the softmax: projections, rotation (3 an element), the norm of its latent (4)."""
    if not options.kv_rank:
        heads = projection_flops(shape, rope=options.rope, qk_norm=options.qk_norm, output_gate=options.output_gate)
        return heads + scaled_queries(options, shape.n_heads, shape.head_dim)
    turned = (shape.n_heads + 1) * rotary_dim(options.shared_rope, options.shared_dim)
    return Flops(
        matmul=2.0 * _latent_weights(options, shape),
        elementwise=4.0 * (options.kv_rank + options.q_rank) + 3.0 * turned,
    ) + scaled_queries(options, shape.n_heads, shape.head_dim + options.shared_dim)


def frequencies(options: IndexedOptions, shape: ModelShape) -> int:
    """Of the rotation, where they are learned: of heads, or of the key beside latents."""
    if not options.rope_learned:
        return 0
    turned = (options.shared_rope, options.shared_dim) if options.kv_rank else (options.rope, shape.head_dim)
    return rotary_dim(*turned) // 2


def scaled_queries(options: IndexedOptions, heads: int, width: int) -> Flops:
    """Of queries that grow with the logarithm of their place: the factor of a head, and its product."""
    return Flops(elementwise=float(heads * (width + 2))) if options.query_scale else Flops()


def attended_softmax(options: IndexedOptions, shape: ModelShape, phase: Phase, pairs: float) -> Flops:
    """Of `pairs` of query and key: of latents D + R for a score and D for its value, or absorbed, C + R and C."""
    if not options.kv_rank:
        return softmax_flops(pairs, shape)
    width = options.kv_rank if phase == "decode" else shape.head_dim
    scores = pairs * shape.n_heads
    return Flops(matmul=2.0 * scores * (2 * width + options.shared_dim), elementwise=4.0 * scores, exp=scores)


def attended_state(options: IndexedOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """A row a token: its keys and values, or its latent with the key that heads share."""
    if not options.kv_rank:
        return kv_cache(shape)
    row = (options.kv_rank + options.shared_dim,)
    return (StateTensor(name="latent", row_shape=row, dtype=shape.dtype, role="kv", stride=1),)


def attended_traffic(options: IndexedOptions, shape: ModelShape, rows: float) -> Traffic:
    """Reading `rows`, and writing the new one."""
    if not options.kv_rank:
        return kv_traffic(rows, shape)
    row_bytes = float((options.kv_rank + options.shared_dim) * shape.dtype_bytes)
    return Traffic(read_bytes=rows * row_bytes, written_bytes=row_bytes)


def score_width(options: IndexedOptions, shape: ModelShape) -> int:
    """Channels of a query and key of attention."""
    return shape.head_dim + options.shared_dim


def _latent_weights(options: IndexedOptions, shape: ModelShape) -> int:
    heads, width, rank = shape.n_heads, shape.head_dim, options.kv_rank
    asked, row = heads * (width + options.shared_dim), rank + options.shared_dim
    queries = options.q_rank * (shape.d_model + asked) if options.q_rank else shape.d_model * asked
    return queries + shape.d_model * (row + heads * width) + 2 * heads * width * rank
