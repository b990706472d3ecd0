"""Which core and which feature map a layer's options ask for."""

from __future__ import annotations

from archsearch.mixer import LayerInfo, ModelShape

from ..core import Core
from ..decays import LogSigmoid
from ..options import LinearOptions
from ..substeps import StepsCore
from .bonus import BonusCore
from .favor import Favor
from .levels import LevelsCore
from .normalised import ExponentialCore, NormalisedCore


def core_of(options: LinearOptions, shape: ModelShape, scale: float) -> Core:
    """The core of a layer of `shape`."""
    heads, key_dim, _ = options.state_dims(shape)
    if options.bonus:
        return BonusCore(scale, heads, key_dim)
    if options.write == "exp":
        form = options.form.parametrisation
        start = form.write_start if isinstance(form, LogSigmoid) else 0.0
        return ExponentialCore(scale, heads=heads, cap=options.form.write_cap, start=start)
    if options.normalizer == "sum":
        return NormalisedCore(scale)
    if options.levels:
        return LevelsCore(scale, heads, options.levels, factor=options.level_weights == "factor")
    if options.steps > 1:
        return StepsCore(scale, options.steps)
    return Core(scale)


def features_of(options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> Favor | None:
    """The random features of a layer, drawn of its index, or None."""
    if options.feature_map == "none":
        return None
    return Favor(options.dims(shape).key_dim, options.state_dims(shape).key_dim, seed=layer.index)
