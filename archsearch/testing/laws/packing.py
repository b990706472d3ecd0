"""Laws of packed batches: sequences that lie end to end do not see each other."""

from __future__ import annotations

import torch

from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, law
from archsearch.testing.laws.runs import packed_context, same, whole


@law(
    "Packed sequences give what each gives alone.",
    cause="a mask, a scan or a convolution that goes on across Context.cu_seqlens",
    declared="packed",
)
def packed_sequences_are_apart(case: Case) -> None:
    """Six sequences, two of them empty."""
    mixer, lengths = case.mixer(), [5, 0, 1, case.tokens, 0, 17]
    x = case.inputs(1, sum(lengths))
    with torch.no_grad():
        packed = whole(mixer, x, packed_context(case, lengths))
        apart = torch.cat([whole(mixer, part) for part in x.split(lengths, 1) if part.shape[1]], 1)
    same(packed, apart, f"sequences of {lengths} tokens, packed, differ from each alone", case.tolerance)


@law(
    "A packed batch without a token gives an output without one.",
    cause="a maximum or a reshape that needs at least one token",
    declared="packed",
)
def empty_packed_batch(case: Case) -> None:
    """Two sequences, both empty."""
    mixer = case.mixer()
    with torch.no_grad():
        out = whole(mixer, case.inputs(1, 0), packed_context(case, [0, 0]))
    if out.shape != (1, 0, case.shape.d_model):
        raise LawBroken(f"no token gives an output {list(out.shape)}, wanted {[1, 0, case.shape.d_model]}")


LAWS = (packed_sequences_are_apart, empty_packed_batch)
