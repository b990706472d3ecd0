"""Layers of a space: what may stand at one place of a pattern, a token mixer and the width of its channel mixer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from archsearch.layer import LayerSpec
from archsearch.search.choices import Draw, MixerChoices


@dataclass(frozen=True, kw_only=True)
class LayerChoices:
    """The mixers of a place, by their entries of ``space.mixers``, and the widths that ``space.ffn_dim`` lists for its
    channel mixer; without any the layer has the backbone's."""

    entries: Mapping[str, MixerChoices]
    ffn_dims: tuple[int, ...] = ()

    def draw(self, trial: Draw, prefix: str) -> LayerSpec:
        """A layer, by the parameters ``<prefix>.mixer``, those of the mixer's options, and ``<prefix>.ffn_dim``."""
        names = tuple(self.entries)
        name = names[0] if len(names) == 1 else trial.suggest_categorical(f"{prefix}.mixer", names)
        layer = self.entries[name].draw(trial, prefix)
        if not self.ffn_dims:
            return layer
        one = len(self.ffn_dims) == 1
        width = self.ffn_dims[0] if one else trial.suggest_categorical(f"{prefix}.ffn_dim", self.ffn_dims)
        return layer.with_ffn_dim(width)

    @cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The distinct layers, in order."""
        mixers = dict.fromkeys(itertools.chain.from_iterable(entry.layers for entry in self.entries.values()))
        return tuple(layer.with_ffn_dim(width) for layer in mixers for width in self.ffn_dims or (None,))
