"""Sizes of a state: the options that set what one decoded token reads, and the value by which it reads so much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from archsearch.arch import ArchSpec
from archsearch.composition import figures_of, refusal
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.layer import LayerSpec
from archsearch.registry import Registry
from archsearch.search.matching.parts import option_at, part_reads, parts, with_option

LARGEST = 2**24
NEIGHBOURS = 64
"""How far from a value that an option's own checks refuse another one is looked for."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A layer of an architecture that stands at some places, and the options that its pattern wrote out, those of a
    part of it by their paths."""

    layer: LayerSpec
    written: frozenset[str]
    places: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A layer whose option ``name`` was set to ``value``, and what one such layer reads, in bytes a decoded token."""

    layer: LayerSpec
    name: str
    value: int
    read: float


@dataclass(frozen=True, kw_only=True)
class StateReads:
    """What decoding one token reads of the state at ``context`` tokens, as costs have it, for variants of layers."""

    registry: Registry
    costs: CostModel
    context: int

    def of(self, arch: ArchSpec) -> float:
        """Bytes of the whole architecture."""
        return self.costs.cost(arch, self.context).decode_read_bytes

    def at(self, arch: ArchSpec, kind: Kind) -> float:
        """Bytes of one layer of a kind, in the mean over its places."""
        layers = self.costs.cost(arch, self.context).layers
        return sum(layers[place].traffic.read_bytes for place in kind.places) / len(kind.places)

    def by_part(self, arch: ArchSpec, kind: Kind) -> dict[str, float] | None:
        """Bytes of each part of a layer of a kind, in the mean over its places, as `part_reads` has them."""
        found = [part_reads(arch, place, self.registry, self.context) for place in kind.places]
        known = [one for one in found if one is not None]
        if len(known) != len(found):
            return None
        return {path: sum(one[path] for one in known) / len(known) for path in known[0]}

    def sized(self, arch: ArchSpec, kind: Kind, name: str, value: int) -> Sized | None:
        """The kind with another value of an option; None where checks refuse it, or where the state is made of other
        tensors then, or has a bound that it had not: a choice among blocks that takes only one, or full attention with
        a window, is another mixer."""
        try:
            made = with_option(kind.layer, name, value, self.registry)
            changed = with_layer(arch, kind, made)
            if refusal(changed, self.registry) is not None or self._tensors(changed, kind) != self._tensors(arch, kind):
                return None
            return Sized(layer=made, name=name, value=value, read=self.at(changed, kind))
        except SpecError:
            return None

    def _tensors(self, arch: ArchSpec, kind: Kind) -> list[tuple[str, bool]]:
        """Names of the tensors of a state, and whether each grows with every token."""
        place = kind.places[0]
        state = figures_of(arch.layers[place], arch, place, self.registry).state()
        return [(tensor.name, tensor.grows and tensor.cap is None) for tensor in state]


def with_layer(arch: ArchSpec, kind: Kind, layer: LayerSpec) -> ArchSpec:
    """The architecture with another layer in the places of a kind."""
    layers = [layer if place in kind.places else one for place, one in enumerate(arch.layers)]
    return ArchSpec(model=arch.model, layers=tuple(layers))


def kinds_of(arch: ArchSpec, written: Sequence[frozenset[str]]) -> tuple[Kind, ...]:
    """The layers of an architecture, equal ones together."""
    places: dict[tuple[LayerSpec, frozenset[str]], list[int]] = {}
    for place, key in enumerate(zip(arch.layers, written, strict=True)):
        places.setdefault(key, []).append(place)
    return tuple(Kind(layer=layer, written=names, places=tuple(at)) for (layer, names), at in places.items())


def sizes_of(arch: ArchSpec, kind: Kind, reads: StateReads) -> tuple[str, ...]:
    """The options that size what a layer reads, the one to change first in front.

    They are whole numbers that a search may tune, that the pattern does not write out, and that change the read. One
    that adds as much with each step (a window, a width, a number of entries) comes before one that does not (the tokens
    of a block), and then in the order in which the mixer declares them, its parts after it.
    """
    found = []
    for path, part in parts(kind.layer):
        for own in part.options.tunables():
            name, value = f"{path}.{own}" if path else own, getattr(part.options, own)
            if name in kind.written or type(value) is not int or (value == 0 and not _is_size(arch, kind, name, reads)):
                continue
            steps = list(_evenly(arch, kind, name, reads))
            if len({step.read for step in steps}) > 1:
                growth = [after.read - before.read for before, after in pairwise(steps)]
                even = growth[0] > 0 and all(abs(one - growth[0]) <= 1e-9 * steps[-1].read for one in growth)
                found.append((not even, name))
    return tuple(name for _, name in sorted(found, key=lambda one: one[0]))


def _is_size(arch: ArchSpec, kind: Kind, name: str, reads: StateReads) -> bool:
    """Whether an option's 0 stands for a size of its own choice, and not for nothing: a state of 1 is smaller."""
    least = reads.sized(arch, kind, name, 1)
    return least is not None and least.read < reads.at(arch, kind)


def _evenly(arch: ArchSpec, kind: Kind, name: str, reads: StateReads) -> Iterator[Sized]:
    """Three values of an option with equal steps between them, from the one that it has (or the first that it can)."""
    start = _value(kind.layer, name) or 16
    for step in (1, 2, 4, 8, 16, 32, 64):
        values = [reads.sized(arch, kind, name, start + times * step) for times in range(3)]
        if all(value is not None for value in values):
            yield from (value for value in values if value is not None)
            return


def nearest_size(arch: ArchSpec, kind: Kind, name: str, share: float, reads: StateReads) -> Sized | None:
    """The value of an option by which a layer reads closest to `share` bytes, None where no value can stand.

    From the value that it has, it is doubled and halved until two values enclose `share`, between which the middle is
    taken until they are neighbours; then steps of one are taken while they come closer. Exact where the read grows with
    the option, as a rule close where it does not.
    """
    least, most = _bounds(kind.layer, name)
    most = max(min(most, 4 * reads.context), _value(kind.layer, name))  # nothing reads tokens that are not
    tried: dict[int, Sized | None] = {}

    def at(value: int) -> Sized | None:
        if value not in tried:
            tried[value] = reads.sized(arch, kind, name, value)
        return tried[value]

    start = _value(kind.layer, name) or min(16, most)
    for values in (_doubled(start, most), _halved(start, least)):
        last = at(start)
        for value in values:
            found = at(value)
            if last is not None and found is not None and (last.read < share) != (found.read < share):
                _close_in(last, found, share, at)
                break
            last = found or last
    best = None
    for _ in range(NEIGHBOURS):
        stand = [one for one in tried.values() if one is not None]
        best = min(stand, key=lambda one: (abs(one.read - share), one.value), default=None)
        near = [] if best is None else [best.value - 1, best.value + 1]
        untried = [value for value in near if least <= value <= most and value not in tried]
        if not untried:
            break
        for value in untried:
            at(value)
    return best


def _doubled(start: int, most: int) -> Iterator[int]:
    while start < most:
        start = min(most, 2 * start)
        yield start


def _halved(start: int, least: int) -> Iterator[int]:
    while start > least:
        start = max(least, start // 2)
        yield start


def _close_in(first: Sized, second: Sized, share: float, at: Callable[[int], Sized | None]) -> None:
    """Tries values between two that enclose `share`, until none is left that could be closer."""
    low, high = sorted((first, second), key=lambda one: one.value)
    below = low.read < share
    while high.value - low.value > 1:
        middle = (low.value + high.value) // 2
        near = sorted(range(low.value + 1, high.value), key=lambda value: abs(value - middle))[: 2 * NEIGHBOURS]
        found = next((one for one in map(at, near) if one is not None), None)
        if found is None:
            return
        low, high = (found, high) if (found.read < share) == below else (low, found)


def _value(layer: LayerSpec, name: str) -> int:
    part, own = option_at(layer, name)
    return int(getattr(part.options, own))


def _bounds(layer: LayerSpec, name: str) -> tuple[int, int]:
    """The least and the most that an option may be, by its declaration; the least is above 0, which is no size."""
    part, own = option_at(layer, name)
    metadata = type(part.options).model_fields[own].metadata

    def limits(key: str) -> list[float]:
        return [getattr(meta, key) for meta in metadata if getattr(meta, key, None) is not None]

    least = max([1, *map(math.ceil, limits("ge")), *(math.floor(limit) + 1 for limit in limits("gt"))])
    most = min([LARGEST, *map(math.floor, limits("le")), *(math.ceil(limit) - 1 for limit in limits("lt"))])
    return least, most
