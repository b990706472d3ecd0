"""Equal parameters: a width of the channel mixer, chosen so that an architecture has as many as the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.layer import MAX_FFN_DIM
from archsearch.units import format_quantity

PARAMS_TOLERANCE = 0.01
"""Numbers of parameters within this share of the baseline's count as equal."""


def match_params(arch: ArchSpec, written: Sequence[bool], target: float, costs: CostModel) -> ArchSpec:
    """The architecture with one width of channel mixer in every layer whose pattern wrote none (``written``), by which
    its parameters are as near to `target` as whole widths allow.

    A mixture of experts shares a width out among the experts of a token, so that only its multiples are taken. The
    parameters of every expert count. Raises `SpecError` where there is no channel mixer whose width could give way, or
    its width would be below the least.
    """
    has = _params(arch, costs)
    if has == target:
        return arch
    if arch.model.channel_mixer == "none":
        raise SpecError(
            'model.channel_mixer = "none" leaves no width that could give way: set it to "swiglu" or "moe", or drop '
            "compare.match"
        )
    if all(written):
        raise SpecError("every layer's ffn_dim is written out, and stays: leave it out where it may be chosen")
    unit = arch.model.experts_per_token if arch.model.channel_mixer == "moe" else 1
    one, two = (_params(with_width(arch, written, unit * times), costs) for times in (1, 2))
    times = round((target - one) / (two - one)) + 1
    if times < 1:
        raise SpecError(
            f"with channel mixers of the least width, {unit}, it has {format_quantity(one, unit='')} parameters, and "
            f"the baseline {format_quantity(target, unit='')}: give the baseline a wider one (model.ffn_dim), or this "
            "one smaller token mixers"
        )
    return with_width(arch, written, min(times * unit, MAX_FFN_DIM // unit * unit))


def with_width(arch: ArchSpec, written: Sequence[bool], width: int) -> ArchSpec:
    """The architecture with channel mixers of a width in the layers that wrote none."""
    layers = zip(arch.layers, written, strict=True)
    return ArchSpec(
        model=arch.model, layers=tuple(layer if fixed else layer.with_ffn_dim(width) for layer, fixed in layers)
    )


def _params(arch: ArchSpec, costs: CostModel) -> int:
    return costs.cost(arch, 1).params
