"""What the additive forms add to a layer's costs: features, parameters, operations and states; arithmetic only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsearch.mixer import Dtype, Flops, ModelShape, StateTensor

from ..decays import CAP

if TYPE_CHECKING:
    from ..options import LinearOptions

SHIFT_RANK = 32
"""Of the map of the token shift, for each projection."""


def core_features(options: LinearOptions, shape: ModelShape) -> int:
    """Numbers that the layer's projection makes of each token for its core: gates of writes, weights of levels."""
    return shape.n_heads * ((options.write == "exp") + options.levels)


def more_params(options: LinearOptions, shape: ModelShape, roles: int) -> int:
    """Trained parameters of token shift, for so many ``roles``, bonus and levels."""
    heads, key_dim, _ = options.state_dims(shape)
    count = heads * key_dim * options.bonus + heads * options.levels
    count += heads if options.write == "exp" and options.form.write_cap else 0
    if options.token_shift:
        count += shape.d_model * (1 + roles + 2 * roles * SHIFT_RANK)
    return count


def more_flops(options: LinearOptions, shape: ModelShape, roles: int) -> Flops:
    """Operations of one token beside its projections and the recurrence."""
    heads, key_dim, value_dim = options.dims(shape)
    keys, values, done = float(heads * key_dim), float(heads * value_dim), Flops()
    if options.token_shift:
        low, width = float(roles * SHIFT_RANK), float(shape.d_model)
        done += Flops(matmul=4 * width * low, elementwise=width * (3 + 3 * roles), exp=low)
    if options.key == "forget":
        done += Flops(elementwise=keys, exp=keys)
    if options.feature_map == "favor":
        made = 2.0 * heads * options.state_dims(shape).key_dim
        done += Flops(matmul=2 * made * key_dim, elementwise=4 * made + 6 * keys, exp=made)
    if options.bonus:
        done += Flops(elementwise=3 * keys + 2 * values)
    if options.normalizer != "none":
        done += Flops(elementwise=values + 2.0 * heads)
    if options.write == "exp":
        done += Flops(elementwise=values + 7.0 * heads, exp=2.0 * heads)
        if options.form.write_cap:
            done += (CAP + Flops(elementwise=1)) * float(heads)
    return done + Flops(elementwise=2, exp=2) * float(heads * options.levels)


def more_state(options: LinearOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Tensors beside the recurrent state and the convolution's: the last token, the stabiliser."""
    dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
    kept = []
    if options.token_shift or options.static_shift:
        kept.append(StateTensor(name="shift", row_shape=(shape.d_model,), dtype=shape.dtype, role="conv", base=1))
    if options.write == "exp":
        kept.append(StateTensor(name="stabilizer", row_shape=(shape.n_heads,), dtype=dtype, role="recurrent", base=1))
    return tuple(kept)
