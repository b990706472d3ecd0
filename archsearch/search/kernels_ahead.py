"""Kernels ahead of a search: a worker with a card proves what the candidates meet, and tells what it may take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray

from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError, said
from archsearch.kernels.forms import Use
from archsearch.recipe import Recipe
from archsearch.search.actor import IMPL_VARIABLE, worker_registry
from archsearch.search.problem import Problem
from archsearch.training.forms import settled_here

SECONDS = 1800.0
"""How long it may take, with the wait for a free card: some rows of half a minute to two each."""


def proven_ahead(
    problem: Problem, demand: Mapping[str, float], plugins: str, *, tell: Callable[[str], None]
) -> frozenset[Use]:
    """The rows of kernels that a worker takes for the candidates of a search, once it has proven those that they meet;
    none, and a note, where no worker answers. Other nodes prove theirs before their first trial; where they come to
    other rows, their results have keys of their own."""
    impl = os.environ.get(IMPL_VARIABLE) or "auto"
    if not demand.get("gpu") or impl != "auto":
        return frozenset()
    archs = [arch.to_json() for arch in looked_at(problem)]
    task = ray.remote(settled_rows).options(num_cpus=demand["cpu"], num_gpus=demand["gpu"], max_retries=0)
    reference = task.remote(archs, problem.spec.training.model_dump(mode="json"), plugins)
    try:
        return frozenset(ray.get(reference, timeout=SECONDS))
    except (ray.exceptions.RayError, ArchsearchError) as error:
        cause = getattr(error, "cause", None) or error
        tell(f"which kernels the workers take is not known ({said(cause)}): results in the database are not used again")
        ray.cancel(reference, force=True)
        return frozenset()


def looked_at(problem: Problem) -> list[ArchSpec]:
    """A model of one layer for each mixer that a candidate may have, by the sizes of each backbone, and the
    references."""
    layers = {layer.mixer: layer for layer in reversed(problem.space.layers)}
    models = {model.shape: model for model in reversed(problem.space.backbones.models)}
    single = [ArchSpec(model=model, layers=(layer,)) for model in models.values() for layer in layers.values()]
    return [*single, *problem.references]


def settled_rows(archs: list[dict[str, Any]], recipe: Mapping[str, Any], plugins: str) -> list[Use]:
    """Of a worker: the rows that it takes for some architectures."""
    registry, found = worker_registry(plugins), set[Use]()
    for data in archs:
        with suppress(ArchsearchError):  # a layer that cannot stand alone, or be trained: its trial says so
            found |= settled_here(ArchSpec.from_json(data, registry), Recipe.read(recipe), registry)
    return sorted(found)
