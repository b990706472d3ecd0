"""Value residual: which layers mix an earlier layer's values into their own, and what that costs.

ResFormer (arXiv 2410.17897): attention of layer l mixes v'_l = a v_l + b v_1 of a token, v_1 the values of the first
layer. Here the first is the first of the layers whose values have the same heads and width, so that layers of other
values may stand between; a layer without values of heads, and one before which no other has such values, is as it is
without a value residual. Mixers within another take no part.
"""

from __future__ import annotations

from collections.abc import Sequence

from archsearch.amounts import Flops
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.figures import Figures
from archsearch.layer import LayerInfo, LayerSpec, Resolver

Values = tuple[int, int]
"""Heads of values, and the width of one."""


def values_of(layer: LayerSpec, info: LayerInfo, model: ModelSpec, resolver: Resolver) -> Values | None:
    """What the plugin of a layer says of its values."""
    return Figures(resolver.resolve(layer.mixer).plugin, layer.options, model.shape, info).values()


def sources(layers: Sequence[LayerSpec], model: ModelSpec, resolver: Resolver) -> tuple[int | None, ...]:
    """Of each layer the index of the one whose values it mixes into its own; None where it mixes none in."""
    return tuple(source_of(layers, index, model, resolver) for index in range(len(layers)))


def source_of(layers: Sequence[LayerSpec], index: int, model: ModelSpec, resolver: Resolver) -> int | None:
    """That of one layer: the first earlier one whose values have the same heads and width."""
    if model.value_residual == "none":
        return None

    def values(at: int) -> Values | None:
        info = LayerInfo(index=at, depth=len(layers), resolver=resolver, pattern=tuple(layers))
        return values_of(layers[at], info, model, resolver)

    own = values(index)
    return None if own is None else next((at for at in range(index) if values(at) == own), None)


def without_effect(arch: ArchSpec, resolver: Resolver) -> str | None:
    """Why no layer of `arch` has the value residual that its backbone asks for, None where one has or none is asked.

    Such an architecture is by another name the one without a value residual.
    """
    kind = arch.model.value_residual
    if kind == "none" or any(source is not None for source in sources(arch.layers, arch.model, resolver)):
        return None
    return (
        f'value_residual = "{kind}" changes nothing: no layer has values of the heads and width of an earlier one: '
        'write "none", or repeat a mixer with values'
    )


def mixing_cost(values: Values, model: ModelSpec) -> tuple[int, Flops]:
    """Parameters of a layer that mixes earlier values in, and operations of one token: a learned weight multiplies
    each side, half of both takes one product."""
    learned = model.value_residual == "learned"
    return 2 if learned else 0, Flops(elementwise=(3.0 if learned else 2.0) * values[0] * values[1])
