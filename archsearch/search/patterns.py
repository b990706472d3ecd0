"""Patterns: how the layers of a candidate hang together, drawn choice by choice, counted, and gone through."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsearch.analysis.matching_record import LISTED
from archsearch.arch import ModelSpec, whole_pattern
from archsearch.errors import SpecError, listing
from archsearch.layer import LayerSpec
from archsearch.registry import Registry
from archsearch.search.choices import Draw, MixerChoices
from archsearch.search.layers import LayerChoices
from archsearch.search.tables.space import SpaceTable

Layers = tuple[LayerSpec, ...]


class Pattern(ABC):
    """How the layers of a candidate hang together: a way to draw them, and the exact number of distinct results."""

    @abstractmethod
    def draw(self, trial: Draw) -> Layers:
        """The layers of one candidate."""

    @abstractmethod
    def count(self) -> int:
        """Number of distinct candidates."""

    @abstractmethod
    def all(self) -> Iterator[Layers]:
        """Every distinct candidate once."""

    def in_order(self) -> Iterator[Mapping[str, Any]]:
        """The choices of the candidates that somebody has put into an order, in which they are tried."""
        return iter(())


class Free(Pattern):
    """Every layer by itself."""

    def __init__(self, choices: LayerChoices, n_layers: int) -> None:
        self._choices, self._n_layers = choices, n_layers

    def draw(self, trial: Draw) -> Layers:
        return tuple(self._choices.draw(trial, f"layer{index}") for index in range(self._n_layers))

    def count(self) -> int:
        return int(len(self._choices.layers) ** self._n_layers)

    def all(self) -> Iterator[Layers]:
        return itertools.product(self._choices.layers, repeat=self._n_layers)


class Periodic(Pattern):
    """A unit of 1 to ``period`` layers, repeated and cut at the last layer."""

    def __init__(self, choices: LayerChoices, n_layers: int, period: int) -> None:
        if period > n_layers:
            raise SpecError(f"space.period = {period} exceeds model.n_layers = {n_layers}: at most {n_layers}")
        self._choices, self._n_layers, self._period = choices, n_layers, period

    def draw(self, trial: Draw) -> Layers:
        lengths = tuple(range(1, self._period + 1))
        length = lengths[0] if len(lengths) == 1 else trial.suggest_categorical("period", lengths)
        return self._repeated([self._choices.draw(trial, f"unit{index}") for index in range(length)])

    def _repeated(self, unit: Sequence[LayerSpec]) -> Layers:
        return tuple(itertools.islice(itertools.cycle(unit), self._n_layers))

    def count(self) -> int:
        """By inclusion and exclusion over the periods that a sequence may have at once."""
        total = 0
        for size in range(1, self._period + 1):
            for periods in itertools.combinations(range(1, self._period + 1), size):
                free = _classes(self._n_layers, periods)
                total += (-1) ** (size + 1) * len(self._choices.layers) ** free
        return total

    def all(self) -> Iterator[Layers]:
        seen: set[Layers] = set()
        for length in range(1, self._period + 1):
            for unit in itertools.product(self._choices.layers, repeat=length):
                layers = self._repeated(unit)
                if layers not in seen:
                    seen.add(layers)
                    yield layers


def _classes(n_layers: int, periods: Sequence[int]) -> int:
    """Number of layers that can be chosen freely when layers `p` apart are equal for each `p` of `periods`."""
    owner = list(range(n_layers))
    for period in periods:
        for index in range(period, n_layers):
            old, new = owner[index], owner[index - period]
            owner = [new if value == old else value for value in owner]
    return len(set(owner))


class Ratio(Pattern):
    """``r`` layers of a cheap mixer, then one of a costly mixer, repeated and cut at the last layer."""

    def __init__(self, cheap: LayerChoices, costly: LayerChoices, n_layers: int, ratios: Sequence[int]) -> None:
        longest = max(ratios)
        if longest >= n_layers:
            raise SpecError(
                f"space.ratios has {longest}, which leaves no layer of model.n_layers = {n_layers} to the costly "
                f"mixer: at most {n_layers - 1}"
            )
        self._cheap, self._costly, self._n_layers, self._ratios = cheap, costly, n_layers, tuple(ratios)

    def draw(self, trial: Draw) -> Layers:
        one = len(self._ratios) == 1
        ratio = self._ratios[0] if one else trial.suggest_categorical("ratio", self._ratios)
        return self._mixed(self._cheap.draw(trial, "cheap"), self._costly.draw(trial, "costly"), ratio)

    def _mixed(self, cheap: LayerSpec, costly: LayerSpec, ratio: int) -> Layers:
        return tuple(costly if index % (ratio + 1) == ratio else cheap for index in range(self._n_layers))

    def count(self) -> int:
        cheap, costly = set(self._cheap.layers), set(self._costly.layers)
        both = len(cheap & costly)
        return (len(cheap) * len(costly) - both) * len(self._ratios) + both

    def all(self) -> Iterator[Layers]:
        parts = itertools.product(self._cheap.layers, self._costly.layers, self._ratios)
        every = (self._mixed(*part) for part in parts)
        return iter(dict.fromkeys(every))


class Listed(Pattern):
    """The architectures that somebody has written down, in their order."""

    def __init__(self, architectures: Mapping[str, Layers]) -> None:
        self._architectures = architectures

    @classmethod
    def of(cls, texts: Sequence[str], model: ModelSpec, n_layers: int, registry: Registry) -> Listed:
        """Raises `SpecError` for a pattern that cannot be read, has another number of layers, or is listed twice."""
        found: dict[str, Layers] = {}
        for index, text in enumerate(texts):
            try:
                layers = whole_pattern(text, model, n_layers, registry).layers
            except SpecError as error:
                raise SpecError(f"space.architectures[{index}]: {error}") from None
            twin = next((other for other, its in found.items() if its == layers), None)
            if twin is not None:
                raise SpecError(f'space.architectures[{index}] = "{text}" is "{twin}" again: drop one')
            found[text] = layers
        return cls(found)

    def name(self, trial: Draw) -> str:
        """The one that is drawn, as it is written down."""
        names = tuple(self._architectures)
        chosen: str = names[0] if len(names) == 1 else trial.suggest_categorical(LISTED, names)
        return chosen

    def draw(self, trial: Draw) -> Layers:
        return self._architectures[self.name(trial)]

    def count(self) -> int:
        return len(self._architectures)

    def all(self) -> Iterator[Layers]:
        return iter(self._architectures.values())

    def in_order(self) -> Iterator[Mapping[str, Any]]:
        names = tuple(self._architectures)
        return iter([{}] if len(names) == 1 else [{LISTED: name} for name in names])


def pattern_of(
    table: SpaceTable, entries: Mapping[str, MixerChoices], model: ModelSpec, n_layers: int, registry: Registry
) -> Pattern:
    """The pattern of ``[space]``; raises `SpecError` naming the key."""
    if table.pattern == "listed":
        return Listed.of(table.architectures, model, n_layers, registry)
    everywhere = LayerChoices(entries=entries, ffn_dims=table.ffn_dim)
    if table.pattern == "free":
        return Free(everywhere, n_layers)
    if table.pattern == "periodic":
        return Periodic(everywhere, n_layers, table.period or 1)
    costly = {name: entries[name] for name in table.costly or _of_family_full(entries, registry)}
    cheap = {name: entry for name, entry in entries.items() if name not in costly}
    for part, remedy in ((costly, "name some in space.costly"), (cheap, "leave some out of space.costly")):
        if not part:
            raise SpecError(f'space.pattern = "ratio" needs cheap and costly mixers among {listing(entries)}: {remedy}')
    parts = [LayerChoices(entries=part, ffn_dims=table.ffn_dim) for part in (cheap, costly)]
    return Ratio(parts[0], parts[1], n_layers, table.ratios)


def _of_family_full(entries: Mapping[str, MixerChoices], registry: Registry) -> list[str]:
    return [name for name in entries if registry.resolve(name).plugin.family == "full"]
