"""Mixers as tables: what is registered, options, presets, what a layer keeps and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from archsearch.analysis.catalogue import catalogue, options_of, presets_of, rows_in_words
from archsearch.analysis.crossings import CURVES
from archsearch.arch import ModelSpec
from archsearch.costs import layer_cost
from archsearch.errors import ArchsearchError
from archsearch.layer import LayerSpec
from archsearch.mixer import LayerInfo, MixerPlugin
from archsearch.registry import Registry

from .conformance import conformance_of

MEASURED = ("kv_bytes", "state_bytes", "decode_flops", "traffic", "prefill_flops")


def mixers_table(registry: Registry) -> pd.DataFrame:
    """One row a mixer or preset, by family: what it does, where it was published, how its state grows, what the suite
    found of its mixer, and the plugin that brings it."""
    found = {mixer.name: conformance_of(mixer).short for mixer in registry.mixers()}
    rows = [
        (
            entry.name,
            entry.mixer,
            entry.family,
            entry.rule,
            entry.growth,
            entry.source,
            found[entry.mixer],
            registry.version_of(entry.mixer),
        )
        for entry in catalogue(registry)
    ]
    return pd.DataFrame(
        rows, columns=["name", "mixer", "family", "rule", "state", "published", "conformance", "version"]
    )


def narrowed(listed: pd.DataFrame, words: str, families: Sequence[str]) -> pd.DataFrame:
    """The rows of `mixers_table` of some families (none: of all) that have every one of the words somewhere."""
    kept = listed[listed["family"].isin(families)] if families else listed
    texts = kept.astype(str).agg(" ".join, axis=1).str.lower()
    for word in words.lower().split():
        found = texts.str.contains(word, regex=False)
        kept, texts = kept[found], texts[found]
    return kept


def counted(listed: pd.DataFrame) -> str:
    """How many mixers and presets a table has, in words."""
    mixers, names = listed["mixer"].nunique(), len(listed)
    return f"{names} name{'s' if names != 1 else ''} of {mixers} mixer{'s' if mixers != 1 else ''}"


def failures(registry: Registry) -> pd.DataFrame:
    """The plugins that cannot be used, with their error."""
    rows = [(one.name, one.distribution, one.status, one.error) for one in registry.reports() if one.status != "ok"]
    return pd.DataFrame(rows, columns=["plugin", "distribution", "status", "error"])


def options_table(mixer: MixerPlugin[Any], registry: Registry) -> pd.DataFrame:
    """One row an option: what it means, its type, its default, and what a search chooses from unless it is narrowed."""
    found = options_of(mixer.name, registry)
    rows = [(one.option, one.meaning, one.type, one.default, ", ".join(one.searched)) for one in found]
    return pd.DataFrame(rows, columns=["option", "meaning", "type", "default", "searched"])


def presets_table(mixer: MixerPlugin[Any], registry: Registry) -> pd.DataFrame:
    """One row a preset: its rule, where it was published, and the options that it fixes."""
    return pd.DataFrame(map(asdict, presets_of(mixer, registry)), columns=["preset", "rule", "published", "fixes"])


def state_table(mixer: MixerPlugin[Any], registry: Registry, model: ModelSpec) -> pd.DataFrame:
    """What decoding keeps for one sequence with the mixer's defaults: each tensor, its rows and how they grow."""
    layer = LayerSpec.make(mixer.name, registry)
    tensors = mixer.state(layer.options, model.shape, LayerInfo(resolver=registry))
    return pd.DataFrame(
        [
            (tensor.name, tensor.role, " x ".join(map(str, tensor.row_shape)), tensor.dtype, rows_in_words(tensor))
            for tensor in tensors
        ],
        columns=["tensor", "role", "shape of a row", "dtype", "rows"],
    )


def layer_curves(names: Sequence[str], registry: Registry, model: ModelSpec, contexts: Sequence[int]) -> pd.DataFrame:
    """``arch`` (the mixer's or preset's name), ``context``, and `MEASURED` of one layer with the defaults."""
    return pd.DataFrame(list(_curve_rows(names, registry, model, contexts)), columns=["arch", "context", *MEASURED])


def _curve_rows(
    names: Sequence[str], registry: Registry, model: ModelSpec, contexts: Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    for name in names:
        layer = LayerSpec.make(name, registry)
        for context in contexts:
            cost = layer_cost(layer, model, LayerInfo(resolver=registry), registry, context)
            moved = cost.traffic.read_bytes + cost.traffic.written_bytes
            yield (
                name,
                context,
                cost.kv_bytes,
                cost.state_bytes,
                cost.decode_flops.total,
                moved,
                cost.prefill_flops.total,
            )


def names_of(registry: Registry) -> dict[str, str]:
    """Every mixer and preset that can be costed with its defaults, and its family."""
    found: dict[str, str] = {}
    for mixer in registry.mixers():
        for name in (mixer.name, *registry.presets_of(mixer.name)):
            found[name] = mixer.family
    return found


LABELS: Mapping[str, str] = {**CURVES, "state_bytes": "State that decoding keeps"}
"""`MEASURED` in words."""


def can_cost(name: str, registry: Registry, model: ModelSpec) -> str | None:
    """Why a mixer cannot stand on a backbone; None where it can."""
    try:
        layer_cost(LayerSpec.make(name, registry), model, LayerInfo(resolver=registry), registry, 1)
    except ArchsearchError as error:
        return str(error)
    return None
