"""How a pattern is carried to more layers and other widths: a unit repeats, anything else is stretched."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import SpecError
from archsearch.layer import LayerSpec
from archsearch.search.tables.space import SpaceTable

Layers = tuple[LayerSpec, ...]
STEP = 16
"""Own widths of channel mixers are carried to multiples of it, as a derived ``ffn_dim`` is."""


def unit_of(layers: Sequence[LayerSpec], space: SpaceTable) -> int:
    """Layers of the unit that `layers` repeat, cut at the last one; 0 where they repeat none.

    In a space of units or ratios it is the shortest that makes up the pattern, of at most ``period`` layers, or one
    more than the largest ratio. In any other it must stand there twice in full to be one.
    """
    longest = len(layers) // 2
    if space.pattern == "periodic":
        longest = max(longest, space.period or 1)
    elif space.pattern == "ratio":
        longest = max(longest, max(space.ratios) + 1)
    for length in range(1, min(longest, len(layers)) + 1):
        if all(layer == layers[index % length] for index, layer in enumerate(layers)):
            return length
    return 0


def stretched(layers: Sequence[LayerSpec], n_layers: int, unit: int) -> Layers:
    """`layers` carried to `n_layers`, at least as many: the first `unit` of them repeated and cut, or, without a unit,
    layer i that of ``floor(i * len(layers) / n_layers)``.

    So a stretched pattern keeps its order, its first and its last layer, and the share of each layer to within one
    layer. Raises `SpecError` for fewer layers.
    """
    before = len(layers)
    if n_layers < before:
        raise SpecError(f"a pattern of {before} layers cannot be carried to {n_layers}: a rung has no fewer layers")
    if unit:
        return tuple(itertools.islice(itertools.cycle(layers[:unit]), n_layers))
    return tuple(layers[index * before // n_layers] for index in range(n_layers))


def carried(arch: ArchSpec, model: ModelSpec, n_layers: int, unit: int) -> ArchSpec:
    """`arch` on another backbone, of `n_layers`. A layer's own channel mixer keeps its share of the backbone's width,
    to the nearest multiple of `STEP`; options of mixers are kept as they are."""
    layers = stretched(arch.layers, n_layers, unit)
    return ArchSpec(model=model, layers=tuple(_widened(layer, arch.model, model) for layer in layers))


def _widened(layer: LayerSpec, before: ModelSpec, now: ModelSpec) -> LayerSpec:
    if not layer.ffn_dim or before.channel_dim == now.channel_dim:
        return layer
    step = STEP * (now.experts_per_token if now.channel_mixer == "moe" else 1)
    width = layer.ffn_dim * now.channel_dim / before.channel_dim
    return layer.with_ffn_dim(max(step, round(width / step) * step))
