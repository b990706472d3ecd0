"""The worker's side of a search: a Tune trainable that trains one trial in slices and hands back its measurements."""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune

from archsearch.arch import ArchSpec, digest_of
from archsearch.errors import ArchsearchError, ClusterError, PluginError, foreign_code, said
from archsearch.evidence.standing import PROVE
from archsearch.kernels.forms import listing_unproven
from archsearch.registry import Registry, load_registry
from archsearch.search.last_words import LastWords
from archsearch.search.matching.steps import with_steps
from archsearch.search.own_proofs import OwnProofs
from archsearch.source import UNKNOWN
from archsearch.tasks import Task, resolve_task
from archsearch.training import Evaluation, Recipe
from archsearch.training.group import ALONE, Group
from archsearch.training.key import device_name

SLICE_SECONDS = 1.0
"""Training between two reports: long beside the cost of a report, short for a person who waits for Ctrl-C."""
WAITING = "waiting"
"""Key of a result that says that no worker of a trial trains yet: several wait for room, or for each other."""
PROVING = "proving"
"""Key of a result that says that the next one comes after the proof of a kernel's row, and within how many seconds."""
IMPL_VARIABLE = "ARCHSEARCH_IMPL"
"""As `archsearch.ops.impl` reads it, where "auto" means what an absent one does."""

_log = logging.getLogger("archsearch.search")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a worker is told of a trial: plain data and names, never a database.

    ``runs`` are (task, seed) with tasks by the search's names for them; ``parts`` are (name, version, digest) of the
    mixers and tasks that the search uses and of the core, ``installed`` (name, version) of all the driver's plugins,
    ``plugins`` those that no distribution installs, pickled; ``impl`` is the driver's ``ARCHSEARCH_IMPL``, so that the
    same forms run, ``prove`` its ``ARCHSEARCH_PROVE``, empty where the worker's own counts; ``checkpoints`` is a folder
    of the worker's host, or a URL; ``evaluators`` are names by task; ``steps`` are those of tasks for which the trial
    has steps of its own, in place of the recipe's.
    """

    trial: int
    arch: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]
    runs: Sequence[Sequence[Any]]
    parts: Sequence[Sequence[str]]
    installed: Sequence[tuple[str, str]]
    plugins: str
    impl: str
    checkpoints: str
    evaluators: Mapping[str, Sequence[str]] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    prove: str = ""

    def to_config(self) -> dict[str, Any]:
        """As Tune's config: one string, so that Tune neither flattens nor samples it."""
        return {"assignment": json.dumps(self.__dict__)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Assignment:
        """Reads `to_config`'s data."""
        return cls(**json.loads(config["assignment"]))


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Trains the runs of one trial after another; reused for the next trial, the registry and its imports included.

    The first result of a trial has only ``place``, where it runs, before any code of a plugin does. Those that follow
    have `PROVING` alone, one before each row of kernels that is proven here for its models. Every other has
    ``trial``, ``task``, ``seed``, ``step``, ``total_steps``, ``value`` of the primary metric, ``looks`` (all of the
    run's, as `Evaluation` gives them) when there is a new one, ``measurement`` (JSON text) when a run has ended,
    ``done`` when the trial has (all runs are measured, or one diverged), and ``note``: what is worth knowing of the
    worker and no error.
    """

    _waiting: dict[str, Any] | None
    _note: str
    _assignment: Assignment
    _registry: Registry
    _arch: ArchSpec
    _recipe: Recipe
    _runs: list[tuple[str, int]]
    _evaluation: Evaluation | None = None
    _looks = 0
    _tasks: dict[str, Task]
    _plugins: str | None = None
    _words: LastWords | None = None
    _placed = False
    _group: Group = ALONE
    _proofs: OwnProofs | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the assignment of `config`; the first step begins with it, as what is raised here would look to the
        driver like a worker that died."""
        self._waiting, self._placed = config, False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial in the same process; of one that was stopped before its end nothing is kept."""
        self.leave()
        self._waiting, self._placed = new_config, False
        return True

    def step(self) -> dict[str, Any]:
        """Says where it is, then trains for about `SLICE_SECONDS` at a time. An error goes to the driver without the
        foreign one that caused it, which may not be picklable, or not known there."""
        if not self._placed:
            self._placed = True
            return {"place": self._place(), "done": False}
        try:
            return self._slice()
        except ArchsearchError as error:
            _log.info("the trial failed", exc_info=error)
            error.__cause__ = error.__context__ = None
            raise

    def _slice(self) -> dict[str, Any]:
        if self._waiting is not None:
            config, self._waiting = self._waiting, None
            self._begin(config)
            self._proofs = OwnProofs(self._arch, self._recipe, self._registry, self._group)
        if self._proofs is not None:
            seconds = self._proofs.prove()
            if seconds:
                return {PROVING: seconds, "done": False}
            self._proofs = None
        name, seed = self._runs[0]
        if self._evaluation is None:
            with listing_unproven():  # what could be proven was, outside of the trial's time
                self._evaluation, self._looks = self._evaluate(name, seed), 0
        evaluation = self._evaluation
        if not evaluation.done:
            evaluation.advance(SLICE_SECONDS)
        progress = evaluation.progress
        result = {
            "trial": self._assignment.trial,
            "task": name,
            "seed": seed,
            "step": progress.step,
            "total_steps": progress.total_steps,
            "value": progress.value,
            "done": False,
            "note": self._note,
        }
        looks = evaluation.looks
        if len(looks) > self._looks:
            self._looks = len(looks)
            result["looks"] = looks
        if evaluation.done:
            measurement = evaluation.measurement()
            evaluation.discard()
            self._evaluation = None
            self._runs = self._runs[1:] if measurement.status == "complete" else []
            result |= {"measurement": json.dumps(measurement.to_json()), "done": not self._runs}
        return result

    def leave(self) -> None:
        """Drops the run that is under way, and its checkpoint."""
        if self._evaluation is not None:
            self._evaluation.discard()
            self._evaluation = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps no checkpoints: an evaluation writes its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Tune keeps no checkpoints."""

    def _place(self) -> dict[str, Any]:
        """Fields of `failures.Place`."""
        inside = ray.is_initialized()
        if self._words is None and inside:
            self._words = LastWords()
        gpus = [str(gpu) for gpu in ray.get_gpu_ids()] if inside else []
        return {
            "node": socket.gethostname(),
            "node_id": ray.get_runtime_context().get_node_id() if inside else "",
            "device": device_name() if gpus else "cpu",
            "gpus": gpus,
            "pid": os.getpid(),
            "words": "" if self._words is None else str(self._words.path),
        }

    def _begin(self, config: Mapping[str, Any]) -> None:
        assignment = self._assignment = Assignment.from_config(config)
        if self._plugins != assignment.plugins:
            self._registry = worker_registry(assignment.plugins)
            self._plugins = assignment.plugins
            self._tasks = {}
        check_parts(self._registry, assignment.parts)
        self._note = difference_of_unused(self._registry, assignment.installed)
        os.environ[IMPL_VARIABLE] = assignment.impl
        take_policy(assignment.prove)
        self._arch = ArchSpec.from_json(assignment.arch, self._registry)
        self._recipe = Recipe.read(assignment.recipe)
        self._runs = [(str(name), int(seed)) for name, seed in assignment.runs]
        self._evaluation = None

    def _evaluate(self, name: str, seed: int) -> Evaluation:
        place, task = self._assignment.checkpoints, self._task(name)
        folder = place if "://" in place else Path(place).expanduser()
        steps = self._assignment.steps.get(name)
        return Evaluation(
            self._arch,
            task,
            self._recipe if steps is None else with_steps(self._recipe, steps, task.seq_len),
            seed,
            registry=self._registry,
            checkpoint=f"{folder}/{self._assignment.trial}-{digest_of([name, seed])}.pt",
            group=self._group,
            evaluators=self._assignment.evaluators.get(name, ()),
        )

    def _task(self, name: str) -> Task:
        """Tasks are kept between trials: their validation and test sets are made once."""
        text = json.dumps(self._assignment.tasks[name], sort_keys=True)
        if text not in self._tasks:
            table = self._assignment.tasks[name]
            self._tasks[text] = resolve_task(
                table["name"], self._registry, setting=table["setting"], options=table["options"]
            )
        return self._tasks[text]


def take_policy(prove: str) -> None:
    """Has this worker prove kernels as the driver's ``ARCHSEARCH_PROVE`` says; where that has none, as its own does."""
    if prove:
        os.environ[PROVE] = prove


def pack_plugins(registry: Registry) -> str:
    """The plugins that no distribution installs, by value, as text; raises `PluginError` for one that cannot go."""
    sent = registry.sendable()
    try:
        return base64.b64encode(cloudpickle.dumps(sent)).decode()
    except Exception as error:  # the plugin boundary: an object may be pickled by its own code
        names = ", ".join(plugin.name for plugin in sent)
        raise PluginError(
            f"the plugins {names} cannot be sent to a worker ({type(error).__name__}: {said(error)}): install them as "
            "a package"
        ) from None


def worker_registry(plugins: str) -> Registry:
    """The registry of a worker: what is installed there, and what the driver sent along."""
    registry = load_registry()
    with foreign_code("plugins that came from the driver", "unpickling them"):
        received = cloudpickle.loads(base64.b64decode(plugins))
    for sent in received:
        registry.add(sent.plugin, name=sent.name, source=sent.sources)
    return registry


def check_parts(registry: Registry, expected: Sequence[Sequence[str]]) -> None:
    """Raises `ClusterError` with both lists when what the search uses is not the same on a worker: mixers, tasks, and
    the core, by version and by the digest of their source, where that can be told."""
    wanted = {name: (version, digest) for name, version, digest in expected}
    here = {name: _part_here(registry, name) for name in wanted}
    differing = [name for name in wanted if not _same(wanted[name], here[name])]
    if differing:
        driver = "; ".join(f"{name} {' '.join(wanted[name])}" for name in differing)
        worker = "; ".join(f"{name} {' '.join(here[name])}" for name in differing)
        raise ClusterError(
            f"a worker's plugins differ from the driver's: driver has {driver}; worker has {worker}: "
            "install the same source of the same versions on both"
        )


def _same(driver: tuple[str, str], worker: tuple[str, str]) -> bool:
    untold = all(digest.startswith(UNKNOWN) for _, digest in (driver, worker))
    return driver[0] == worker[0] and (untold or driver[1] == worker[1])


def _part_here(registry: Registry, name: str) -> tuple[str, str]:
    try:
        parts = registry.parts_named([name])
    except ArchsearchError as error:
        return "none of it", f"({error})"
    return next(((part.version, part.digest) for part in parts), ("none of it", ""))


def difference_of_unused(registry: Registry, driver: Sequence[tuple[str, str]]) -> str:
    """In which plugins a worker differs from its driver, in a sentence, empty where in none; for plugins that the
    search does not use, whose difference changes no result."""
    there, here = dict(driver), dict(registry.fingerprint())
    named = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if not named:
        return ""
    shown = [f"{name} {there.get(name, '(none)')} here, {here.get(name, '(none)')} there" for name in sorted(named)]
    return f"plugins that this search does not use differ on a worker: {'; '.join(shown)}"
