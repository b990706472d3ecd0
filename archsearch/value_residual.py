"""Value residual: which mixers mix an earlier layer's values into their own, and what that costs.

ResFormer (arXiv 2410.17897): attention of layer l mixes v'_l = a v_l + b v_1 of a token, v_1 the values of the first
layer. Here the first is the first of the mixers of earlier layers whose values have the same heads and width, so that
layers of other values may stand between; a mixer without values of heads, and one before whose layer no other has such
values, is as it is without a value residual. The mixers that a layer is made of take part each by itself.
"""

from __future__ import annotations

from archsearch.amounts import Flops
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import placed
from archsearch.layer import Resolver

Values = tuple[int, int]
"""Heads of values, and the width of one."""

Place = tuple[int, str]
"""A layer by its index, and the path of a mixer that it is made of (`LayerInfo.part`), "" for the layer itself."""


def valued(arch: ArchSpec, index: int, resolver: Resolver) -> dict[str, Values]:
    """What the plugins of layer `index`, and of the mixers that it is made of, say of their values, by their path."""
    said = {one.info.part: one.figures(resolver).values() for one in placed(arch, index, resolver)}
    return {part: values for part, values in said.items() if values is not None}


def taken(arch: ArchSpec, resolver: Resolver) -> dict[Place, tuple[Place, Values]]:
    """Of each mixer that mixes values of an earlier layer into its own, whose, and their heads and width."""
    first, found = dict[Values, Place](), dict[Place, tuple[Place, Values]]()
    if arch.model.value_residual == "none":
        return found
    for index in range(len(arch.layers)):
        own = valued(arch, index, resolver)
        found |= {(index, part): (first[values], values) for part, values in own.items() if values in first}
        for part, values in own.items():
            first.setdefault(values, (index, part))
    return found


def without_effect(arch: ArchSpec, resolver: Resolver) -> str | None:
    """Why no layer of `arch` has the value residual that its backbone asks for, None where one has or none is asked.

    Such an architecture is by another name the one without a value residual.
    """
    kind = arch.model.value_residual
    if kind == "none" or taken(arch, resolver):
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
