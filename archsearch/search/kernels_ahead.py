"""Kernels ahead of a search: a worker with a card proves what the candidates meet, and tells what it may take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray

from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError, said
from archsearch.evidence.standing import PROVE
from archsearch.kernels.forms import Use, policy
from archsearch.recipe import Recipe
from archsearch.search.actor import IMPL_VARIABLE, take_policy, worker_registry
from archsearch.search.problem import Problem
from archsearch.search.ray_session import JoiningStopped
from archsearch.training.forms import settled_here

SECONDS = 1800.0
"""How long it may take, with the wait for a free card: some rows of half a minute to two each."""

SILENT_SECONDS = 10.0
"""After which it is said what is waited for: where all rows are known a worker answers sooner."""

POLL_SECONDS = 0.5


def proven_ahead(
    problem: Problem,
    demand: Mapping[str, float],
    plugins: str,
    *,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> frozenset[Use]:
    """The rows of kernels that a worker takes for the candidates of a search, once it has proven those that they meet;
    none, and a note, where no worker answers. Other nodes prove theirs before their first trial; where they come to
    other rows, their results have keys of their own. Raises `JoiningStopped` once `stop` is set, `OptionsError` for an
    ``ARCHSEARCH_PROVE`` that is no policy."""
    impl = os.environ.get(IMPL_VARIABLE) or "auto"
    if not demand.get("gpu") or impl != "auto":
        return frozenset()
    policy()  # one that there is not is refused here, and not by each trial
    archs = [arch.to_json() for arch in looked_at(problem)]
    task = ray.remote(settled_rows).options(num_cpus=demand["cpu"], num_gpus=demand["gpu"], max_retries=0)
    recipe, prove = problem.spec.training.model_dump(mode="json"), os.environ.get(PROVE, "")
    reference = task.remote(archs, recipe, plugins, prove)
    try:
        _wait(reference, stop, tell)
        return frozenset(ray.get(reference, timeout=POLL_SECONDS))
    except (ray.exceptions.RayError, ArchsearchError) as error:
        cause = getattr(error, "cause", None) or error
        tell(f"which kernels the workers take is not known ({said(cause)}): results in the database are not used again")
        ray.cancel(reference, force=True)
        return frozenset()
    except (KeyboardInterrupt, JoiningStopped):
        ray.cancel(reference, force=True)
        raise


def _wait(reference: Any, stop: threading.Event, tell: Callable[[str], None]) -> None:
    """Until the worker has answered, for `SECONDS` at most."""
    start, told = time.monotonic(), False
    while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
        waited = time.monotonic() - start
        if stop.is_set():
            raise JoiningStopped
        if waited > SECONDS:
            return
        if not told and waited > SILENT_SECONDS:
            told = True
            tell(
                "before the first trial a worker proves the kernels that the candidates meet, each in a minute or two, "
                "once a machine and version (with ARCHSEARCH_PROVE=listed none is)"
            )


def looked_at(problem: Problem) -> list[ArchSpec]:
    """A model of one layer for each mixer that a candidate may have, by the sizes of each backbone, and the
    references."""
    layers = {layer.mixer: layer for layer in reversed(problem.space.layers)}
    models = {model.shape: model for model in reversed(problem.space.backbones.models)}
    single = [ArchSpec(model=model, layers=(layer,)) for model in models.values() for layer in layers.values()]
    return [*single, *problem.references]


def settled_rows(archs: list[dict[str, Any]], recipe: Mapping[str, Any], plugins: str, prove: str = "") -> list[Use]:
    """Of a worker: the rows that it takes for some architectures; ``prove`` is the driver's ``ARCHSEARCH_PROVE``."""
    take_policy(prove)
    registry, found = worker_registry(plugins), set[Use]()
    for data in archs:
        with suppress(ArchsearchError):  # a layer that cannot stand alone, or be trained: its trial says so
            found |= settled_here(ArchSpec.from_json(data, registry), Recipe.read(recipe), registry)
    return sorted(found)
