"""Costs of full attention."""

from __future__ import annotations

from archsearch.attention_cost import projection_flops, projection_params, softmax_flops, visible_pairs
from archsearch.mixer import Flops, ModelShape, Phase

from .options import FullOptions


def attention_params(options: FullOptions, shape: ModelShape) -> int:
    """The projections, norms and gate."""
    return projection_params(
        shape, n_kv_heads=options.n_kv_heads, qk_norm=options.qk_norm, output_gate=options.output_gate
    )


def attention_flops(options: FullOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections of each token, and the half of the square of scores that a causal sequence needs: 2 Hq T^2 D.

    One decoded token sees all `context` tokens: 4 T Hq D of matrix product.
    """
    token = projection_flops(
        shape,
        n_kv_heads=options.n_kv_heads,
        rope=options.rope,
        qk_norm=options.qk_norm,
        output_gate=options.output_gate,
    )
    if phase == "decode":
        return token + softmax_flops(context, shape)
    return token * context + softmax_flops(visible_pairs(context), shape)
