"""Equal state read: the sizes of a state, chosen so that one decoded token reads as many bytes as the baseline's."""

from __future__ import annotations

from collections.abc import Sequence

from archsearch.arch import ArchSpec
from archsearch.search.matching_sizes import Kind, Sized, StateReads, kinds_of, nearest_size, sizes_of, with_layer

STATE_TOLERANCE = 0.05
"""State reads within this share of the baseline's count as equal."""


def match_state(arch: ArchSpec, written: Sequence[frozenset[str]], target: float, reads: StateReads) -> ArchSpec:
    """The architecture with sizes by which it reads `target` bytes, as nearly as they allow, which may be far: the
    caller looks.

    Every layer that has such a size gets an equal share of what the layers that have none leave over. One whose sizes
    are coarse may miss its share, which those after it make up for.
    """
    sizes = {kind: sizes_of(arch, kind, reads) for kind in kinds_of(arch, written)}
    free = [kind for kind, names in sizes.items() if names]
    for number, kind in enumerate(free):
        later = free[number:]
        others = reads.of(arch) - sum(reads.at(arch, one) * len(one.places) for one in later)
        share = (target - others) / sum(len(one.places) for one in later)
        best = _best_size(arch, kind, sizes[kind], max(0.0, share), reads)
        if best is not None and abs(best.read - share) < abs(reads.at(arch, kind) - share):
            arch = with_layer(arch, kind, best.layer)
    return arch


def why_apart(asked: ArchSpec, found: ArchSpec, written: Sequence[frozenset[str]], reads: StateReads) -> str:
    """The nearest that was found in words, as the beginning of a sentence that goes on with what it reads."""
    if any(sizes_of(asked, kind, reads) for kind in kinds_of(asked, written)):
        return f"the nearest found, {found.pattern(reads.registry)},"
    if any(sizes_of(asked, kind, reads) for kind in kinds_of(asked, [frozenset()] * len(written))):
        return "what sizes its state is written out in the pattern, and stays: it"
    return "none of its options sizes its state, which follows from the context alone: it"


def _best_size(arch: ArchSpec, kind: Kind, names: Sequence[str], share: float, reads: StateReads) -> Sized | None:
    """The first option whose nearest value is within the tolerance, else the nearest of all."""
    nearest: Sized | None = None
    for name in names:
        found = nearest_size(arch, kind, name, share, reads)
        if found is None:
            continue
        if abs(found.read - share) <= STATE_TOLERANCE * share:
            return found
        if nearest is None or abs(found.read - share) < abs(nearest.read - share):
            nearest = found
    return nearest
