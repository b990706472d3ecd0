"""Backbones of a space: what all layers of a candidate share, drawn key by key and never into a dead end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.arch import ModelSpec, digest_of
from archsearch.costs import channel_cost
from archsearch.errors import SpecError
from archsearch.search.choices import Draw
from archsearch.search.tables.backbone import BackboneChoices

BACKBONE = "backbone"
"""The part of a candidate that its backbone's parameters are named by, as a sampler inherits it whole."""

MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One backbone with the values of ``[space.backbone]`` that lead to it."""

    model: ModelSpec
    values: Mapping[str, Any]

    @property
    def size(self) -> int:
        """What it adds to the costs of a layer, roughly: the widths of heads and channel mixer, and meta tokens."""
        heads = self.model.head_dim * (self.model.n_heads + 2 * self.model.n_kv_heads)
        return heads * self.model.d_model + channel_cost(self.model)[0] + self.model.meta_tokens


@dataclass(frozen=True, kw_only=True)
class Backbones:
    """The distinct backbones of a space. ``listed`` are the keys of ``[space.backbone]`` with their values."""

    listed: Mapping[str, tuple[Any, ...]]
    all: tuple[Backbone, ...]

    @classmethod
    def of(cls, table: BackboneChoices, model: ModelSpec) -> Backbones:
        """The valid combinations of the values, over `model`; combinations that are trained alike count once.

        Raises `SpecError` for more than `MOST`, and for a value that is part of none.
        """
        listed = table.listed
        count = math.prod(map(len, listed.values()))
        if count > MOST:
            raise SpecError(f"space.backbone has {count} combinations, more than {MOST}: list fewer values")
        found: dict[str, Backbone] = {}
        refused: dict[tuple[str, Any], str] = {}
        for picked in itertools.product(*listed.values()):
            values = dict(zip(listed, picked, strict=True))
            try:
                made = model.changed(values)
            except SpecError as error:
                for choice in values.items():
                    refused.setdefault(choice, str(error))
                continue
            found.setdefault(digest_of(made.trained()), Backbone(model=made, values=values))
        made_of = {choice for backbone in found.values() for choice in backbone.values.items()}
        for choice in ((key, value) for key, values in listed.items() for value in values):
            if choice not in made_of:
                key, value = choice
                why = refused.get(choice, f"space.backbone.{key} = {value!r} changes nothing beside the other values")
                raise SpecError(f"{why}: drop it, or add values that go with it")
        return cls(listed=listed, all=tuple(found.values()))

    def draw(self, trial: Draw) -> ModelSpec:
        """A backbone, by parameters named ``backbone.<key>``; a key of which one value is left is no parameter."""
        left = self.all
        for key, declared in self.listed.items():
            offered = tuple(dict.fromkeys(backbone.values[key] for backbone in left))
            if len(offered) == 1:
                continue
            some = "" if offered == declared else f"[{'|'.join(map(str, offered))}]"
            chosen = trial.suggest_categorical(f"{BACKBONE}.{key}{some}", offered)
            left = tuple(backbone for backbone in left if backbone.values[key] == chosen)
        return left[0].model

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The backbones alone."""
        return tuple(backbone.model for backbone in self.all)

    @property
    def smallest_first(self) -> tuple[Backbone, ...]:
        """As they are tried where the cheapest candidate is looked for."""
        return tuple(sorted(self.all, key=lambda backbone: backbone.size))
