"""Costs of multi-head latent attention: multiplied out over a sequence, absorbed for a decoded token."""

from __future__ import annotations

from archsearch.attention_cost import rotary_dim, visible_pairs
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import LatentOptions


def latent_params(options: LatentOptions, shape: ModelShape) -> int:
    """Parameters of the projections, and a scale for each number that is normed."""
    return _weights(options, shape) + options.kv_rank + options.q_rank


def latent_flops(options: LatentOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections of each token, norms (4 an element), rotation (3 an element), and softmax over its scores.

    A score of a sequence takes D + S products and its value D; one of a decoded token, whose query and output absorb
    what would multiply latents out, S + 2 C. Absorbing costs a token what multiplying it out does.
    """
    turned = (shape.n_heads + 1) * rotary_dim(options.rope, options.shared_dim)
    token = Flops(
        matmul=2.0 * _weights(options, shape),
        elementwise=4.0 * (options.kv_rank + options.q_rank) + 3.0 * turned,
    )
    if phase == "decode":
        return token + _softmax(context * shape.n_heads, 2 * options.kv_rank + options.shared_dim)
    pairs = visible_pairs(context) * shape.n_heads
    return token * context + _softmax(pairs, 2 * shape.head_dim + options.shared_dim)


def latent_state(options: LatentOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """One row a token for all heads: the latent, and the shared key after it."""
    return (StateTensor(name="latent", row_shape=(options.row,), dtype=shape.dtype, role="kv", stride=1),)


def latent_traffic(options: LatentOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Every row once, and the new one."""
    row_bytes = float(options.row * shape.dtype_bytes)
    return Traffic(read_bytes=context * row_bytes, written_bytes=row_bytes)


def _weights(options: LatentOptions, shape: ModelShape) -> int:
    heads, width = shape.n_heads, shape.head_dim
    asked = heads * (width + options.shared_dim)
    queries = (shape.d_model + asked) * options.q_rank if options.q_rank else shape.d_model * asked
    return queries + shape.d_model * options.row + heads * width * (2 * options.kv_rank + shape.d_model)


def _softmax(scores: float, channels: int) -> Flops:
    return Flops(matmul=2.0 * scores * channels, elementwise=4.0 * scores, exp=scores)
