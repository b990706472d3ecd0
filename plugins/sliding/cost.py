"""Costs of sliding-window attention."""

from __future__ import annotations

from archsearch.attention_cost import projection_flops, projection_params, softmax_flops, visible_pairs
from archsearch.mixer import Flops, ModelShape, Phase

from .options import SlidingOptions


def attention_params(options: SlidingOptions, shape: ModelShape) -> int:
    """The projections, norms and gate, and a sink logit a head."""
    projected = projection_params(
        shape, n_kv_heads=options.n_kv_heads, qk_norm=options.qk_norm, output_gate=options.output_gate
    )
    return projected + (shape.n_heads if options.sink_logit else 0)


def attention_flops(options: SlidingOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections of each token, and the band of scores: a token sees ``window + sinks`` keys once there are so many.

    The sinks widen the band by their number: 4 Hq D (T W - W^2 / 2) of matrix product, W the sum of both.
    A sink logit is one more score without products: an exponential and 4 elementwise operations a token and head.
    """
    token = projection_flops(
        shape,
        n_kv_heads=options.n_kv_heads,
        rope=options.rope,
        qk_norm=options.qk_norm,
        output_gate=options.output_gate,
    )
    if options.sink_logit:
        token += Flops(elementwise=4.0 * shape.n_heads, exp=float(shape.n_heads))
    width = options.window + options.sinks
    if phase == "decode":
        return token + softmax_flops(min(context, width), shape)
    return token * context + softmax_flops(visible_pairs(context, width), shape)
