"""The worker's side of a search: a Tune trainable that trains one trial in slices and hands back its measurements."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune

from archsearch.arch import ArchSpec, digest_of
from archsearch.errors import ClusterError, PluginError
from archsearch.registry import Registry, load_registry
from archsearch.tasks import Task, resolve_task
from archsearch.training import Evaluation, Recipe

SLICE_SECONDS = 1.0
"""Training between two reports: long beside the cost of a report, short for a person who waits for Ctrl-C."""
UNPACKAGED = "(unpackaged)"


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a worker is told of a trial: plain data and names, never a database.

    ``runs`` are (task, seed) with tasks by the search's names for them; ``fingerprint`` is the driver's list of
    plugins, ``plugins`` those that no distribution installs, pickled; ``checkpoints`` a folder of the worker's host.
    """

    trial: int
    arch: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]
    runs: Sequence[Sequence[Any]]
    fingerprint: Sequence[Sequence[str]]
    plugins: str
    checkpoints: str

    def to_config(self) -> dict[str, Any]:
        """As Tune's config: one string, so that Tune neither flattens nor samples it."""
        return {"assignment": json.dumps(self.__dict__)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Assignment:
        """Reads `to_config`'s data."""
        return cls(**json.loads(config["assignment"]))


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Trains the runs of one trial after another; reused for the next trial, the registry and its imports included.

    A result has ``task``, ``seed``, ``step``, ``total_steps``, ``value`` of the primary metric, ``measurement`` (JSON
    text) when a run has ended, and ``done`` when the trial has: all runs are measured, or one diverged.
    """

    _assignment: Assignment
    _registry: Registry
    _arch: ArchSpec
    _recipe: Recipe
    _runs: list[tuple[str, int]]
    _evaluation: Evaluation | None
    _tasks: dict[str, Task]
    _plugins: str | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Begins with the assignment of `config`."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains for about `SLICE_SECONDS`."""
        name, seed = self._runs[0]
        if self._evaluation is None:
            self._evaluation = self._evaluate(name, seed)
        evaluation = self._evaluation
        if not evaluation.done:
            evaluation.advance(SLICE_SECONDS)
        progress = evaluation.progress
        result = {
            "task": name, "seed": seed, "step": progress.step, "total_steps": progress.total_steps,
            "value": progress.value, "done": False,
        }  # fmt: skip
        if evaluation.done:
            measurement = evaluation.measurement()
            evaluation.discard()
            self._evaluation = None
            self._runs = self._runs[1:] if measurement.status == "complete" else []
            result |= {"measurement": json.dumps(measurement.to_json()), "done": not self._runs}
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps no checkpoints: an evaluation writes its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Tune keeps no checkpoints."""

    def _begin(self, config: Mapping[str, Any]) -> None:
        assignment = self._assignment = Assignment.from_config(config)
        if self._plugins != assignment.plugins:
            self._registry = worker_registry(assignment.plugins)
            self._plugins = assignment.plugins
            self._tasks = {}
        check_fingerprint(self._registry, assignment.fingerprint)
        self._arch = ArchSpec.from_json(assignment.arch, self._registry)
        self._recipe = Recipe.read(assignment.recipe)
        self._runs = [(str(name), int(seed)) for name, seed in assignment.runs]
        self._evaluation = None

    def _evaluate(self, name: str, seed: int) -> Evaluation:
        folder = Path(self._assignment.checkpoints).expanduser()
        return Evaluation(
            self._arch, self._task(name), self._recipe, seed, registry=self._registry,
            checkpoint=folder / f"{self._assignment.trial}-{digest_of([name, seed])}.pt",
        )  # fmt: skip

    def _task(self, name: str) -> Task:
        """Tasks are kept between trials: their validation and test sets are made once."""
        text = json.dumps(self._assignment.tasks[name], sort_keys=True)
        if text not in self._tasks:
            table = self._assignment.tasks[name]
            self._tasks[text] = resolve_task(
                table["name"], self._registry, setting=table["setting"], options=table["options"]
            )
        return self._tasks[text]


def pack_plugins(registry: Registry) -> str:
    """The plugins that no distribution installs, by value, as text; raises `PluginError` for one that cannot go."""
    names = [report.name for report in registry.reports() if report.distribution == UNPACKAGED]
    packed = list(zip(names, registry.unpackaged(), strict=True))
    try:
        return base64.b64encode(cloudpickle.dumps(packed)).decode()
    except (TypeError, AttributeError, ValueError, ImportError) as error:
        raise PluginError(
            f"the plugins {', '.join(names)} cannot be sent to a worker ({error}): install them as a package"
        ) from None


def worker_registry(plugins: str) -> Registry:
    """The registry of a worker: what is installed there, and what the driver sent along."""
    registry = load_registry()
    for name, plugin in cloudpickle.loads(base64.b64decode(plugins)):
        registry.add(plugin, name=name)
    return registry


def check_fingerprint(registry: Registry, expected: Sequence[Sequence[str]]) -> None:
    """Raises `ClusterError` with both lists when a worker's plugins differ from the driver's."""
    here, driver = registry.fingerprint(), [(name, version) for name, version in expected]
    if here != driver:
        shown = ["; ".join(f"{name} {version}" for name, version in plugins) for plugins in (driver, here)]
        raise ClusterError(
            f"a worker's plugins differ from the driver's: driver has {shown[0]}, worker has {shown[1]}: "
            "install the same versions on both"
        )
