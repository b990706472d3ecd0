"""The space of a search: which mixers may stand where, or a list of architectures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictStr, model_validator

from archsearch.errors import SpecError, listing, nearest
from archsearch.layer import MAX_FFN_DIM
from archsearch.notation import MAX_LAYERS
from archsearch.numbers import Whole
from archsearch.search.tables.backbone import BackboneChoices
from archsearch.search.tables.table import MAX_CHOICES, Table
from archsearch.search.tables.values import choices, refuse_twice, texts

MAX_PERIOD = 16
"""Counting the candidates of a periodic space takes time that doubles with each layer of the period."""

Pattern = Literal["free", "periodic", "ratio", "listed"]

_EXAMPLES = {
    "period": "the longest unit, as 4",
    "ratios": "how many cheap layers to a costly one, as [1, 3, 7]",
    "architectures": 'patterns, as ["full", "[kda kda kda full]*2"]',
}


class SpaceTable(Table):
    """Which mixers may stand where, and how their options are narrowed.

    ``mixers``: mixers or presets. A preset keeps the options that it fixes; its other tunable ones are searched.
    ``pattern``: "free" takes each layer by itself; "periodic" repeats a unit of layers, cut at the last layer; "ratio"
    repeats r layers of a cheap mixer, then one of a costly mixer; "listed" takes the architectures of a list, in its
    order.
    ``architectures``: of a pattern "listed", in place of ``mixers``: patterns of whole models, where a single layer is
    repeated. Left out, ``search.trials`` is then their number, and there are no references beside them.
    ``backbones``: of a pattern "listed", a table for each architecture with what its backbone has of the keys of
    ``[space.backbone]``, where it is not as ``[model]`` has it. A ladder writes it of backbones that were drawn.
    ``period``: the longest unit of a periodic pattern, in layers.
    ``ratios``: the numbers r of a pattern of ratios.
    ``costly``: the costly mixers of a pattern of ratios, by default those of the family "full"; all others are cheap.
    ``ffn_dim``: widths of which each layer draws one for its own channel mixer, with its token mixer: 0 for none. A
    mixture of experts shares it out among the experts of a token. Left out, every layer has the backbone's.
    ``backbone``: a table of its own, ``[space.backbone]``, with values of keys of ``[model]`` to choose from.
    ``options``: a table named after an entry of ``mixers`` gives options and the values to choose from, one value or a
    list; a layer is written as notation, which fixes what it writes out and leaves the rest to the search.
    """

    mixers: tuple[str, ...] = Field(default=(), max_length=MAX_CHOICES)
    pattern: Pattern = "free"
    architectures: tuple[StrictStr, ...] = Field(default=(), max_length=MAX_CHOICES)
    backbones: tuple[Mapping[str, Any], ...] = Field(default=(), max_length=MAX_CHOICES)
    period: Whole | None = Field(default=None, ge=1, le=MAX_PERIOD)
    ratios: tuple[Annotated[Whole, Field(ge=1, le=MAX_LAYERS)], ...] = Field(default=(), max_length=MAX_LAYERS)
    costly: tuple[str, ...] = ()
    ffn_dim: tuple[Annotated[Whole, Field(ge=0, le=MAX_FFN_DIM)], ...] = Field(default=(), max_length=MAX_CHOICES)
    backbone: BackboneChoices = BackboneChoices()
    options: Mapping[str, Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known = [name for name in cls.model_fields if name != "options"]
        own = {key: value for key, value in values.items() if key in known}
        mixers = texts(own.get("mixers"))
        tables: dict[str, Any] = {}
        for key, value in values.items():
            if key in own:
                continue
            if not isinstance(value, Mapping):
                raise SpecError(f'unknown key "space.{key}"{nearest(key, known)}: known here are {listing(known)}')
            if key not in mixers:
                raise SpecError(
                    f"[space.{key}] narrows a mixer that space.mixers does not name{nearest(key, mixers)}: "
                    f"it names {listing(mixers)}"
                )
            tables[key] = {option: choices(f"space.{key}.{option}", given) for option, given in value.items()}
        return {**own, "options": tables}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pattern != "listed" and not self.mixers:
            raise SpecError('space.mixers is empty: name mixers or presets, as ["full", "kda"]')
        if self.pattern == "listed" and self.mixers:
            raise SpecError('space.mixers goes with patterns that are drawn, not "listed": drop one of them')
        for name in ("mixers", "ratios", "costly", "ffn_dim"):
            refuse_twice(name, getattr(self, name))
        self._check_backbone()
        for name, pattern in (
            ("period", "periodic"),
            ("ratios", "ratio"),
            ("costly", "ratio"),
            ("architectures", "listed"),
            ("backbones", "listed"),
        ):
            if getattr(self, name) and self.pattern != pattern:
                raise SpecError(f'space.{name} goes with pattern = "{pattern}", not "{self.pattern}": drop one of them')
        for name, pattern in (("period", "periodic"), ("ratios", "ratio"), ("architectures", "listed")):
            if not getattr(self, name) and self.pattern == pattern:
                raise SpecError(f'space.pattern = "{pattern}" needs space.{name}: {_EXAMPLES[name]}')
        for name in self.costly:
            if name not in self.mixers:
                raise SpecError(f'space.costly names "{name}", which space.mixers does not{nearest(name, self.mixers)}')
        return self

    def _check_backbone(self) -> None:
        listed = self.backbone.listed
        if self.pattern == "listed":
            _check_backbones(self.backbones, len(self.architectures), BackboneChoices.model_fields)
        if self.pattern == "listed" and (listed or self.ffn_dim):
            raise SpecError(
                f'space.{"backbone" if listed else "ffn_dim"} goes with patterns that are drawn, not "listed": write '
                'widths into the architectures, as "full:ffn_dim=128", and other backbones into [model] of searches '
                "of their own"
            )
        both = sorted({"ffn_dim", "expert_dim"} & listed.keys()) if self.ffn_dim else []
        if both:
            raise SpecError(
                f"space.ffn_dim gives each layer its own width, and space.backbone.{both[0]} all layers one: drop one"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data in the file's own form."""
        data = self.model_dump(mode="json", exclude={"options"}, exclude_defaults=True)
        options = {name: {key: list(given) for key, given in table.items()} for name, table in self.options.items()}
        return {**data, **options}


def _check_backbones(backbones: Sequence[Mapping[str, Any]], architectures: int, known: Collection[str]) -> None:
    """Raises `SpecError` unless each architecture of a list has one, whose keys are `known`."""
    if backbones and len(backbones) != architectures:
        raise SpecError(
            f"space.backbones has {len(backbones)} tables, and space.architectures {architectures} patterns: give one "
            "for each, {} where it is that of [model]"
        )
    for index, key in ((index, key) for index, table in enumerate(backbones) for key in table):
        if key not in known:
            raise SpecError(
                f'unknown key "space.backbones[{index}].{key}"{nearest(key, known)}: known here are {listing(known)}'
            )
