"""Costs of full attention, by its weighting."""

from __future__ import annotations

from archsearch.attention_cost import (
    kv_cache,
    kv_heads_of,
    kv_traffic,
    projection_flops,
    projection_params,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Dtype, Flops, ModelShape, Phase, StateTensor, Traffic

from .options import FullOptions
from .path_cost import path_flops, path_state, path_token_flops, path_traffic, reflection_params


def attention_params(options: FullOptions, shape: ModelShape) -> int:
    """The projections, norms and gate, and what makes forget gates and reflections."""
    projected = projection_params(
        shape, n_kv_heads=options.n_kv_heads, qk_norm=options.qk_norm, output_gate=options.output_gate
    )
    forget = (shape.d_model + 1) * shape.n_heads if options.forgets else 0
    return projected + forget + (reflection_params(options, shape) if options.reflects else 0)


def attention_flops(options: FullOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections of each token, and the scores that a causal sequence needs, T (T + 1) / 2 of a head: of each 4 D of
    matrix product. Stick-breaking sees no own key, nor does what the delta rule takes away.

    One decoded token sees all `context` tokens: 4 T Hq D of matrix product.
    """
    token = _token_flops(options, shape)
    decoding = phase == "decode"
    pairs = float(context) if decoding else visible_pairs(context)
    own = 1 if decoding else context
    if options.weighting == "stick-breaking":
        pairs -= own
    core = softmax_flops(pairs, shape)
    core += _more_a_score(options, decoding) * (pairs * shape.n_heads)
    if options.reflects:
        core += path_flops(options, shape, decoding=decoding, context=context)
    if options.weighting == "delta":
        key_heads = kv_heads_of(options.n_kv_heads, shape)
        core += softmax_flops(pairs - own, shape) * (key_heads / shape.n_heads)
    return core + (token if decoding else token * context)


def attention_state(options: FullOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """A key and a value row for each token; forget gates in float32 at least; what a convolution looks back on."""
    tensors = kv_cache(shape, n_kv_heads=options.n_kv_heads)
    dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
    forget = StateTensor(name="forget", row_shape=(shape.n_heads,), dtype=dtype, role="kv", stride=1)
    return (*tensors, *([forget] if options.forgets else []), *(path_state(options, shape) if options.reflects else ()))


def attention_traffic(options: FullOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Every row is read, and that of the new token written. Stick-breaking does not read the new token's; of forget
    gates the first token's is not read."""
    rows = context - 1 if options.weighting == "stick-breaking" else context
    traffic = kv_traffic(rows, shape, n_kv_heads=options.n_kv_heads)
    if options.forgets:
        gates = shape.n_heads * (8.0 if shape.dtype == "float64" else 4.0)
        traffic += Traffic(read_bytes=(context - 1) * gates, written_bytes=gates)
    return traffic + path_traffic(options, shape, context) if options.reflects else traffic


def _more_a_score(options: FullOptions, decoding: bool) -> Flops:
    """Beyond the 4 elementwise operations and the exponential of softmax: a softplus and its sum; sums of forget gates,
    in a sequence two more channels of the product."""
    if options.weighting == "stick-breaking":
        return Flops(elementwise=1, exp=1)
    if options.weighting == "forgetting" and not decoding:
        return Flops(matmul=4)
    return Flops(elementwise=2) if options.forgets else Flops()


def _token_flops(options: FullOptions, shape: ModelShape) -> Flops:
    token = projection_flops(
        shape,
        n_kv_heads=options.n_kv_heads,
        rope=options.rope,
        qk_norm=options.qk_norm,
        output_gate=options.output_gate,
    )
    if options.forgets:  # a logarithm of a sigmoid, and the running sum
        heads = float(shape.n_heads)
        token += Flops(matmul=2.0 * shape.d_model * heads, elementwise=4 * heads, exp=2 * heads)
    return token + path_token_flops(options, shape) if options.reflects else token
