"""Costs of sliding-window attention."""

from __future__ import annotations

from archsearch.attention_cost import projection_flops, softmax_flops, visible_pairs
from archsearch.mixer import Flops, ModelShape, Phase

from .options import SlidingOptions


def attention_flops(options: SlidingOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections of each token, and the band of scores: a token sees ``window + sinks`` keys once there are so many.

    The sinks widen the band by their number: 4 Hq D (T W - W^2 / 2) of matrix product, W the sum of both.
    """
    token = projection_flops(shape, n_kv_heads=options.n_kv_heads, rope=options.rope, qk_norm=options.qk_norm)
    width = options.window + options.sinks
    if phase == "decode":
        return token + softmax_flops(min(context, width), shape)
    return token * context + softmax_flops(visible_pairs(context, width), shape)
