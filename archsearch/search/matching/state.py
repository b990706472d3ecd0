"""Equal state read: the sizes of a state, chosen so that one decoded token reads as many bytes as the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archsearch.arch import ArchSpec
from archsearch.search.matching.parts import part_of, parts
from archsearch.search.matching.sizes import Kind, Sized, StateReads, kinds_of, nearest_size, sizes_of, with_layer

STATE_TOLERANCE = 0.05
"""State reads within this share of the baseline's count as equal."""


def match_state(arch: ArchSpec, written: Sequence[frozenset[str]], target: float, reads: StateReads) -> ArchSpec:
    """The architecture with sizes by which it reads `target` bytes, as nearly as they allow, which may be far: the
    caller looks.

    Every layer that has such a size gets an equal share of what the layers that have none leave over, and of a layer
    that is made of several mixers every one that has a size an equal share of what the others of it leave over. One
    whose sizes are coarse may miss its share, which those after it make up for.
    """
    sizes = {kind: sizes_of(arch, kind, reads) for kind in kinds_of(arch, written)}
    free = [kind for kind, names in sizes.items() if names]
    for number, kind in enumerate(free):
        later = free[number:]
        others = reads.of(arch) - sum(reads.at(arch, one) * len(one.places) for one in later)
        share = (target - others) / sum(len(one.places) for one in later)
        arch = _with_share(arch, kind, sizes[kind], max(0.0, share), reads)
    return arch


def _with_share(arch: ArchSpec, kind: Kind, names: Sequence[str], share: float, reads: StateReads) -> ArchSpec:
    """The architecture whose layers of a kind read `share` bytes, as nearly as their sizes allow. One of several mixers
    that is near enough already stays as it is: beside full attention a state would shrink to nothing for the rest."""
    if len(list(parts(kind.layer))) > 1 and abs(reads.at(arch, kind) - share) <= STATE_TOLERANCE * share:
        return arch
    by_part: dict[str, list[str]] = {}
    for name in names:
        by_part.setdefault(part_of(name), []).append(name)
    if len(by_part) == 1 or reads.by_part(arch, kind) is None:
        return _nearer(arch, kind, names, share, reads)[0]
    for number, own in enumerate(by_part.values()):
        later = list(by_part)[number:]
        read = reads.by_part(arch, kind) or {}
        free = share - reads.at(arch, kind) + sum(read[path] for path in later)
        wanted = reads.at(arch, kind) - read[later[0]] + max(0.0, free / len(later))
        arch, kind = _nearer(arch, kind, own, wanted, reads)
    for own in by_part.values():  # what one could not take, as its sizes have an end, another one may
        arch, kind = _nearer(arch, kind, own, share, reads)
    return arch


def _nearer(arch: ArchSpec, kind: Kind, names: Sequence[str], share: float, reads: StateReads) -> tuple[ArchSpec, Kind]:
    """The architecture, and the kind in it, with the first of some options that comes near; unchanged where they are
    as near already."""
    best = _best_size(arch, kind, names, share, reads)
    if best is None or abs(best.read - share) >= abs(reads.at(arch, kind) - share):
        return arch, kind
    return with_layer(arch, kind, best.layer), replace(kind, layer=best.layer)


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
