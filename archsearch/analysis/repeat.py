"""Repeat: the command line that measures a stored trial again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archsearch.analysis.validity import planned_label
from archsearch.arch import ModelSpec
from archsearch.recipe import Recipe

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord, TrialRecord

_MODEL_FLAGS = {
    "d_model": "--d-model",
    "n_heads": "--heads",
    "head_dim": "--head-dim",
    "n_kv_heads": "--kv-heads",
    "short_conv": "--short-conv",
    "channel_mixer": "--channel-mixer",
}
_RECIPE_FLAGS = {"steps": "--steps", "batch_size": "--batch-size", "dtype": "--dtype", "device": "--device"}
_SAID_OTHERWISE = {"learning_rates", "seeds", "checkpoint_seconds"}


def repeat(record: TrialRecord, search: SearchRecord) -> str:
    """The `archsearch evaluate` command of a trial, from its own measurements or, before it has any, the spec."""
    payloads = [measured.payload for measured in record.measurements]
    recipe = payloads[0]["recipe"] if payloads else search.spec["recipe"]
    model = record.arch["model"]
    words = ["archsearch", "evaluate", record.pattern]
    for task in _tasks(payloads, search):
        words += ["--task", task]
    for name in _evaluators(payloads):
        words += ["--metric", name]
    words += _seeds(record, search)
    for rate in recipe["learning_rates"]:
        words += ["--learning-rate", str(rate)]
    words += _flags(_RECIPE_FLAGS, recipe)
    words += _flags(_MODEL_FLAGS, model)
    for key, value in (*_unsaid_model(model), *_unsaid_recipe(recipe)):
        words += ["--set", f"{key}={json.dumps(value)}"]
    return shlex.join(words)


def _tasks(payloads: list[Mapping[str, Any]], search: SearchRecord) -> list[str]:
    if payloads:
        return list(dict.fromkeys(payload["task"] for payload in payloads))
    return [planned_label(task) for task in search.spec["tasks"]]


def _evaluators(payloads: list[Mapping[str, Any]]) -> list[str]:
    versions = (name for payload in payloads for name in payload.get("versions", {}))
    return list(dict.fromkeys(name.partition(":")[2] for name in versions if name.startswith("evaluator:")))


def _seeds(record: TrialRecord, search: SearchRecord) -> list[str]:
    first = min(record.seeds, default=int(search.spec.get("seed", 0)))
    count = len(record.seeds) or int(search.spec["recipe"]["seeds"])
    return ["--seed", str(first), "--seeds", str(count)]


def _flags(flags: Mapping[str, str], values: Mapping[str, Any]) -> list[str]:
    return [word for key, flag in flags.items() if values.get(key) is not None for word in (flag, str(values[key]))]


def _unsaid_model(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    said = {key: value for key, value in model.items() if key in _MODEL_FLAGS}
    trained, derived = ModelSpec.read(model).trained(), ModelSpec.read(said).trained()
    yield from ((f"model.{key}", value) for key, value in trained.items() if value != derived.get(key))


def _unsaid_recipe(recipe: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    defaults = Recipe().model_dump(mode="json")
    for key, value in recipe.items():
        if key not in _RECIPE_FLAGS and key not in _SAID_OTHERWISE and value != defaults.get(key):
            yield f"recipe.{key}", value
