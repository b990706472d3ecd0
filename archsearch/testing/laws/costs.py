"""Laws of costs: parameters are those that are built, and figures are finite and rise with the context."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import get_args

from archsearch.mixer import Phase
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, law

CONTEXTS = tuple(2**exponent for exponent in range(21))


@law(
    "params() is the number of parameters that are built, in every layer.",
    cause="a bias, a norm or a gate that is built and not counted, or a size that depends on the layer's index",
    runs_layer=False,
)
def params_equal_what_is_built(case: Case) -> None:
    """Parameters, in the case's layer and in others of the pattern."""
    for place in [case, *map(case.at, case.places())]:
        built = sum(weights.numel() for weights in place.build().parameters())
        said = place.figures().params()
        if said != built:
            raise LawBroken(f"params() says {said} in layer {place.layer.index}, and {built} are built")


@law(
    "active_params() is at most params().",
    cause="experts that are counted once for each token, or parts that are counted twice",
    runs_layer=False,
)
def active_params_are_at_most_all(case: Case) -> None:
    """What one token meets."""
    for place in [case, *map(case.at, case.places())]:
        place.figures().active_params()


@law(
    "Operations and bytes moved are finite and fall with no longer context.",
    cause="a division by the context, a minimum where a maximum is meant, or one token left out of a block",
    runs_layer=False,
)
def costs_are_finite_and_rise_with_context(case: Case) -> None:
    """Costs at contexts of 1 to 2^20 tokens."""
    figures, costs = case.figures(), dict[str, list[float]]()
    for context in CONTEXTS:
        for phase in get_args(Phase):
            for kind, value in asdict(figures.flops(phase=phase, context=context)).items():
                costs.setdefault(f"{phase} {kind} flops", []).append(value)
        traffic = figures.traffic(context=context)
        for kind in ("read_bytes", "written_bytes", "most_read", "most_written"):
            costs.setdefault(kind, []).append(getattr(traffic, kind))
    for name, series in costs.items():
        for index, (earlier, later) in enumerate(pairwise(series)):
            if later < earlier:
                raise LawBroken(f"{name} fall from {earlier:g} at {CONTEXTS[index]} tokens to {later:g} at twice those")
    if figures.params() and not costs["decode matmul flops"][0] > 0:
        raise LawBroken("a decoded token is said to need no matrix product")


LAWS = (params_equal_what_is_built, active_params_are_at_most_all, costs_are_finite_and_rise_with_context)
