"""The space of candidates: how an architecture is drawn parameter by parameter, counted, and replayed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import reads_pattern
from archsearch.costs import layer_cost
from archsearch.errors import OptionsError, SpecError
from archsearch.layer import LayerSpec
from archsearch.mixer import LayerInfo
from archsearch.registry import Registry
from archsearch.search.backbones import BACKBONE, Backbone, Backbones
from archsearch.search.choices import Draw, MixerChoices, mixer_choices
from archsearch.search.patterns import Pattern, pattern_of
from archsearch.search.tables.space import SpaceTable


@dataclass(frozen=True, kw_only=True)
class Space:
    """All candidates of a search: architectures whose backbone is one of several, mostly of one, and whose token mixers
    are drawn by a pattern. ``model`` is the backbone of ``[model]``, on which the references stand."""

    model: ModelSpec
    backbones: Backbones
    n_layers: int
    entries: Mapping[str, MixerChoices]
    pattern: Pattern

    @classmethod
    def of(cls, table: SpaceTable, model: ModelSpec, n_layers: int, registry: Registry) -> Space:
        """The space of ``[space]``; raises `SpecError`, `OptionsError` or `UnknownNameError` naming the key."""

        backbones = Backbones.of(table.backbone, model)
        if table.ffn_dim and any(backbone.channel_mixer == "none" for backbone in backbones.models):
            raise SpecError(
                'space.ffn_dim is the width of a channel mixer: choose another model.channel_mixer than "none", and '
                "leave that out of space.backbone.channel_mixer (a width of 0 is a layer without one)"
            )

        def accepts(layer: LayerSpec) -> None:
            _accept(layer, backbones.models, n_layers, registry)

        entries = {name: mixer_choices(name, table.options.get(name, {}), registry, accepts) for name in table.mixers}
        return cls(
            model=model,
            backbones=backbones,
            n_layers=n_layers,
            entries=entries,
            pattern=pattern_of(table, entries, model, n_layers, registry),
        )

    def draw(self, trial: Draw) -> ArchSpec:
        """A candidate, by the choices of `trial`; the same choices give the same candidate."""
        return ArchSpec(model=self.backbones.draw(trial), layers=self.pattern.draw(trial))

    def random(self, rng: random.Random) -> ArchSpec:
        """A candidate whose every choice is uniform, as samplers start."""
        return self.draw(RandomDraw(rng))

    def count(self) -> int:
        """Number of candidates with distinct digests, over budget or not."""
        return len(self.backbones.all) * self.pattern.count()

    def all(self) -> Iterator[ArchSpec]:
        """Every candidate once."""
        return (
            ArchSpec(model=model, layers=layers) for model in self.backbones.models for layers in self.pattern.all()
        )

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Every layer that a candidate may have, the one that stands for an entry before its others."""
        drawn = [layer for entry in self.entries.values() for layer in (entry.reference, *entry.layers)]
        listed = (layer for layers in self.pattern.all() for layer in layers) if not drawn else ()
        return tuple(dict.fromkeys((*drawn, *listed)))

    def in_order(self) -> Iterator[Mapping[str, Any]]:
        """The choices that lead to the candidates which are tried in an order that is given, none of a drawn space."""
        return self.pattern.in_order()

    def pure(self) -> Iterator[dict[str, Any]]:
        """The choices that lead to candidates of one layer repeated, for each layer of the space, with the narrowest
        channel mixer, on each backbone: where the pattern has them, the least of any cost that adds up over layers is
        among them."""
        for backbone in self.backbones.smallest_first:
            for entry in self.entries.values():
                for layer in entry.layers:
                    draw = PureDraw(entry, layer, backbone)
                    self.draw(draw)
                    yield draw.params


def _accept(layer: LayerSpec, models: Sequence[ModelSpec], n_layers: int, registry: Registry) -> None:
    """Raises `OptionsError` for a layer whose costs the sizes of every backbone rule out wherever it stands. What
    depends on the layers around it is known of candidates alone."""
    if reads_pattern(layer, registry):
        return
    refused: OptionsError | None = None
    for model, index in itertools.product(models, range(n_layers)):
        try:
            layer_cost(layer, model, LayerInfo(index=index, depth=n_layers, resolver=registry), registry, 1)
        except OptionsError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


class PureDraw:
    """Choices that lead to one layer everywhere, where the pattern allows that, on one backbone; recorded in
    ``params``."""

    def __init__(self, entry: MixerChoices, layer: LayerSpec, backbone: Backbone) -> None:
        self._entry, self._choices, self._backbone = entry, entry.choices_of(layer), backbone
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """The layer's own choice, and the narrowest channel mixer; the first one (the shortest unit, the first ratio)
        for what is none of a layer."""
        prefix, _, own = name.partition(".")
        if prefix == BACKBONE:
            wanted: Any = self._backbone.values[own.partition("[")[0]]
        elif own == "mixer":
            wanted = self._entry.name
        elif own == "ffn_dim":
            wanted = min(choices)
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
