"""Listed architectures of several backbones: each has its own, as the survivors of a search that drew them do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.analysis.validity import on_backbone
from archsearch.arch import ArchSpec, ModelSpec, whole_pattern
from archsearch.errors import SpecError
from archsearch.registry import Registry
from archsearch.search.backbones import Backbone, Backbones
from archsearch.search.choices import Draw
from archsearch.search.patterns import Listed
from archsearch.search.space import Space
from archsearch.search.tables.space import SpaceTable


@dataclass(frozen=True, kw_only=True)
class ListedSpace(Space):
    """A space of whole architectures by the names that a sampler chooses them by, in their order."""

    pattern: Listed
    archs: Mapping[str, ArchSpec]

    def draw(self, trial: Draw) -> ArchSpec:
        """One of them, by the parameter that a list on one backbone has too."""
        return self.archs[self.pattern.name(trial)]

    def count(self) -> int:
        """How many there are."""
        return len(self.archs)

    def all(self) -> Iterator[ArchSpec]:
        """Each of them."""
        return iter(self.archs.values())


def space_of(table: SpaceTable, model: ModelSpec, n_layers: int, registry: Registry) -> Space:
    """The space of ``[space]``, whatever its backbones are; raises what `Space.of` does."""
    if not table.backbones:
        return Space.of(table, model, n_layers, registry)
    archs: dict[str, ArchSpec] = {}
    backbones: dict[ModelSpec, Backbone] = {}
    names: dict[str, str] = {}
    for index, (text, values) in enumerate(zip(table.architectures, table.backbones, strict=True)):
        arch = _listed(index, text, values, model, n_layers, registry)
        name = on_backbone(text, values)
        if arch.digest in names:
            raise SpecError(f'space.architectures[{index}] = "{name}" is "{names[arch.digest]}" again: drop one')
        names[arch.digest] = name
        archs[name] = arch
        backbones.setdefault(arch.model, Backbone(model=arch.model, values=values))
    return ListedSpace(
        model=model,
        backbones=Backbones(listed={}, all=tuple(backbones.values())),
        n_layers=n_layers,
        entries={},
        pattern=Listed({name: arch.layers for name, arch in archs.items()}),
        archs=archs,
    )


def _listed(
    index: int, text: str, values: Mapping[str, Any], model: ModelSpec, n_layers: int, registry: Registry
) -> ArchSpec:
    try:
        own = model.changed(values)
    except SpecError as error:
        raise SpecError(str(error).replace("space.backbone", f"space.backbones[{index}]", 1)) from None
    try:
        return whole_pattern(text, own, n_layers, registry)
    except SpecError as error:
        raise SpecError(f"space.architectures[{index}]: {error}") from None
