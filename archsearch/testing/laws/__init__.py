"""Laws: what every mixer keeps, each tried on one case by a caller with or without pytest."""

from archsearch.testing.laws import (
    calls,
    causality,
    costs,
    declared,
    flops,
    forms,
    model,
    options,
    packing,
    positions,
    state,
    torch_free,
    traffic,
    training,
    values,
)
from archsearch.testing.laws.law import Law, LawBroken, NothingToTry, Outcome, tried

__all__ = ["LAWS", "Law", "LawBroken", "NothingToTry", "Outcome", "tried"]

LAWS: tuple[Law, ...] = (
    *options.LAWS,
    *torch_free.LAWS,
    *costs.LAWS,
    *flops.LAWS,
    *state.LAWS,
    *forms.LAWS,
    *causality.LAWS,
    *packing.LAWS,
    *positions.LAWS,
    *calls.LAWS,
    *training.LAWS,
    *traffic.LAWS,
    *values.LAWS,
    *model.LAWS,
    *declared.LAWS,
)
"""All laws, in the order of cheap to costly rooms."""
