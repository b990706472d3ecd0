"""The space of candidates: how an architecture is drawn parameter by parameter, counted, and replayed."""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import reads_pattern
from archsearch.costs import layer_cost
from archsearch.errors import OptionsError, SpecError, listing
from archsearch.layer import LayerSpec
from archsearch.mixer import LayerInfo
from archsearch.registry import Registry
from archsearch.search.choices import Draw, MixerChoices, distinct, mixer_choices
from archsearch.search.spec import SpaceTable

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


def draw_layer(trial: Draw, prefix: str, entries: Mapping[str, MixerChoices]) -> LayerSpec:
    """The mixer of a place, by the parameter ``<prefix>.mixer``, then its options."""
    names = tuple(entries)
    name = names[0] if len(names) == 1 else trial.suggest_categorical(f"{prefix}.mixer", names)
    return entries[name].draw(trial, prefix)


class Free(Pattern):
    """Every layer by itself."""

    def __init__(self, entries: Mapping[str, MixerChoices], n_layers: int) -> None:
        self._entries, self._n_layers = entries, n_layers
        self._layers = tuple(distinct(list(entries.values())))

    def draw(self, trial: Draw) -> Layers:
        return tuple(draw_layer(trial, f"layer{index}", self._entries) for index in range(self._n_layers))

    def count(self) -> int:
        return int(len(self._layers) ** self._n_layers)

    def all(self) -> Iterator[Layers]:
        return itertools.product(self._layers, repeat=self._n_layers)


class Periodic(Pattern):
    """A unit of 1 to ``period`` layers, repeated and cut at the last layer."""

    def __init__(self, entries: Mapping[str, MixerChoices], n_layers: int, period: int) -> None:
        if period > n_layers:
            raise SpecError(f"space.period = {period} exceeds model.n_layers = {n_layers}: at most {n_layers}")
        self._entries, self._n_layers, self._period = entries, n_layers, period
        self._layers = tuple(distinct(list(entries.values())))

    def draw(self, trial: Draw) -> Layers:
        lengths = tuple(range(1, self._period + 1))
        length = lengths[0] if len(lengths) == 1 else trial.suggest_categorical("period", lengths)
        return self._repeated([draw_layer(trial, f"unit{index}", self._entries) for index in range(length)])

    def _repeated(self, unit: Sequence[LayerSpec]) -> Layers:
        return tuple(itertools.islice(itertools.cycle(unit), self._n_layers))

    def count(self) -> int:
        """By inclusion and exclusion over the periods that a sequence may have at once."""
        total = 0
        for size in range(1, self._period + 1):
            for periods in itertools.combinations(range(1, self._period + 1), size):
                free = _classes(self._n_layers, periods)
                total += (-1) ** (size + 1) * len(self._layers) ** free
        return total

    def all(self) -> Iterator[Layers]:
        seen: set[Layers] = set()
        for length in range(1, self._period + 1):
            for unit in itertools.product(self._layers, repeat=length):
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

    def __init__(
        self,
        cheap: Mapping[str, MixerChoices],
        costly: Mapping[str, MixerChoices],
        n_layers: int,
        ratios: Sequence[int],
    ) -> None:
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
        return self._mixed(draw_layer(trial, "cheap", self._cheap), draw_layer(trial, "costly", self._costly), ratio)

    def _mixed(self, cheap: LayerSpec, costly: LayerSpec, ratio: int) -> Layers:
        return tuple(costly if index % (ratio + 1) == ratio else cheap for index in range(self._n_layers))

    def count(self) -> int:
        cheap, costly = (set(distinct(list(part.values()))) for part in (self._cheap, self._costly))
        both = len(cheap & costly)
        return (len(cheap) * len(costly) - both) * len(self._ratios) + both

    def all(self) -> Iterator[Layers]:
        cheap, costly = (tuple(distinct(list(part.values()))) for part in (self._cheap, self._costly))
        every = (self._mixed(*parts) for parts in itertools.product(cheap, costly, self._ratios))
        return iter(dict.fromkeys(every))


@dataclass(frozen=True, kw_only=True)
class Space:
    """All candidates of a search: architectures of one backbone whose token mixers are drawn by a pattern."""

    model: ModelSpec
    n_layers: int
    entries: Mapping[str, MixerChoices]
    pattern: Pattern

    @classmethod
    def of(cls, table: SpaceTable, model: ModelSpec, n_layers: int, registry: Registry) -> Space:
        """The space of ``[space]``; raises `SpecError`, `OptionsError` or `UnknownNameError` naming the key."""

        def accepts(layer: LayerSpec) -> None:
            _accept(layer, model, n_layers, registry)

        entries = {name: mixer_choices(name, table.options.get(name, {}), registry, accepts) for name in table.mixers}
        return cls(
            model=model, n_layers=n_layers, entries=entries, pattern=_pattern(table, entries, n_layers, registry)
        )

    def draw(self, trial: Draw) -> ArchSpec:
        """A candidate, by the choices of `trial`; the same choices give the same candidate."""
        return ArchSpec(model=self.model, layers=self.pattern.draw(trial))

    def random(self, rng: random.Random) -> ArchSpec:
        """A candidate whose every choice is uniform, as samplers start."""
        return self.draw(RandomDraw(rng))

    def count(self) -> int:
        """Number of candidates with distinct digests, over budget or not."""
        return self.pattern.count()

    def all(self) -> Iterator[ArchSpec]:
        """Every candidate once."""
        return (ArchSpec(model=self.model, layers=layers) for layers in self.pattern.all())

    def pure(self) -> Iterator[dict[str, Any]]:
        """The choices that lead to candidates of one layer repeated, for each layer of the space: where the pattern
        has them, the least of any cost that adds up over layers is among them."""
        for entry in self.entries.values():
            for layer in entry.layers:
                draw = PureDraw(entry, layer)
                self.draw(draw)
                yield draw.params


def _accept(layer: LayerSpec, model: ModelSpec, n_layers: int, registry: Registry) -> None:
    """Raises `OptionsError` for a layer whose costs the backbone's sizes rule out wherever it stands. What depends on
    the layers around it is known of candidates alone."""
    if reads_pattern(layer, registry):
        return
    refused: OptionsError | None = None
    for index in range(n_layers):
        try:
            layer_cost(layer, model, LayerInfo(index=index, depth=n_layers, resolver=registry), registry, 1)
        except OptionsError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _pattern(table: SpaceTable, entries: Mapping[str, MixerChoices], n_layers: int, registry: Registry) -> Pattern:
    if table.pattern == "free":
        return Free(entries, n_layers)
    if table.pattern == "periodic":
        return Periodic(entries, n_layers, table.period or 1)
    costly = {name: entries[name] for name in table.costly or _of_family_full(entries, registry)}
    cheap = {name: entry for name, entry in entries.items() if name not in costly}
    for part, remedy in ((costly, "name some in space.costly"), (cheap, "leave some out of space.costly")):
        if not part:
            raise SpecError(f'space.pattern = "ratio" needs cheap and costly mixers among {listing(entries)}: {remedy}')
    return Ratio(cheap, costly, n_layers, table.ratios)


def _of_family_full(entries: Mapping[str, MixerChoices], registry: Registry) -> list[str]:
    return [name for name in entries if registry.resolve(name).plugin.family == "full"]


class PureDraw:
    """Choices that lead to one layer everywhere, where the pattern allows that; recorded in ``params``."""

    def __init__(self, entry: MixerChoices, layer: LayerSpec) -> None:
        self._entry, self._choices = entry, entry.choices_of(layer)
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The layer's own choice; the first one (the shortest unit, the first ratio) for what is none of a layer."""
        own = name.partition(".")[2]
        if own == "mixer":
            wanted: Any = self._entry.name
        else:
            wanted = self._choices.get(own.removeprefix(f"{self._entry.name}."))
        chosen = self.params[name] = next((label for label in choices if label == wanted), choices[0])
        return chosen


class RandomDraw:
    """Uniform choices from a generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`, each as likely."""
        return self._rng.choice(choices)


class ReplayDraw:
    """Choices that were recorded; ``distributions`` fills with what each was chosen from."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self.distributions: dict[str, CategoricalDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The recorded choice; raises `SpecError` when the space no longer offers it."""
        if name not in self._params or self._params[name] not in choices:
            raise SpecError(
                f'the recorded choice "{name}" = {self._params.get(name)!r} is not one of this space: '
                "the spec or a plugin changed since"
            )
        self.distributions[name] = CategoricalDistribution(tuple(choices))
        return self._params[name]
