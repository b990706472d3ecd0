"""Trains orders on a local Ray, a process or two to a trial, and writes the reports, as ``COUNT FOLDER [TRIAL]``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from hostile_mixers import Hostile

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.recipe import Recipe
from archsearch.registry import load_registry
from archsearch.search.actor import Assignment, pack_plugins
from archsearch.search.failures import Failure, Place
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.ray_session import workers
from archsearch.search.tables.resources import ResourcesTable
from archsearch.search.workers import train
from archsearch.tasks import resolve_task

LAYERS = {
    5: "full",
    6: "full",
    1: "sliding(window=8) full",
    2: "hostile(way=raises)",
    3: "hostile(way=exits)",
    4: "full",
    7: "sliding(window=8) full",
}
ENDLESS = 4
"""The trial after whose first result the driver is told to stop."""
STOPPED = 5
"""An endless trial too, which is stopped at its first look, before all others."""
KILLED = 6
"""An endless trial whose own process is killed after its first result; others need what it had reserved."""
CUT = 7
"""A trial that is trained by itself: the first time the driver is told to stop once it has a checkpoint."""
CUT_AT, CUT_STEPS = 20, 300
TRIAL_TITLES = (b"ray::ResourceTrainable", b"ray::TrialActor", b"ray::Sized")
"""By which Ray calls the process of a trial, within a step and between two."""


class Orders:
    """A source of one trial after another."""

    def __init__(self, count: int, folder: Path, only: int | None = None) -> None:
        self.registry = load_registry()
        self.registry.add(Hostile())
        self.task = resolve_task("mqar:easy", self.registry)
        self.count, self.folder, self.running = count, folder, 0
        self.left = [trial for trial in LAYERS if trial != CUT] if only is None else [only]
        self.cuts = os.environ.get("CUT") == "yes"
        self.results: dict[int, list[dict[str, Any]]] = {trial: [] for trial in LAYERS}
        self.failures: dict[int, str] = {}
        self.places: dict[int, dict[str, Any]] = {}
        self.stop = threading.Event()

    def arch(self, trial: int) -> ArchSpec:
        model = ModelSpec(d_model=16, n_heads=1, channel_mixer="none", vocab_size=self.task.vocab_size)
        return ArchSpec.parse(LAYERS[trial], self.registry, model)

    def next(self) -> TrialOrder | None:
        if self.running or not self.left:
            return None
        self.running = trial = self.left.pop(0)
        return TrialOrder(trial=trial, kind="search", arch=self.arch(trial), pattern="", runs=(Run("mqar", 0),))

    @property
    def done(self) -> bool:
        return not self.left and not self.running

    def assignment(self, order: TrialOrder) -> Assignment:
        steps = 100_000 if order.trial in (ENDLESS, STOPPED, KILLED) else 4
        steps = CUT_STEPS if order.trial == CUT else steps
        every = 10 if order.trial == CUT else 2
        said = {"steps": steps, "batch_size": 8, "eval_every": every, "stop_at": 0.0, "accumulate": 2}
        recipe = Recipe.read({**said, "checkpoint_seconds": 0.01})
        mixers = [layer.mixer for layer in order.arch.layers]
        return Assignment(
            trial=order.trial,
            arch=order.arch.to_json(),
            tasks={"mqar": self.task.to_json()},
            recipe=recipe.for_workers(self.count).model_dump(mode="json"),
            runs=[("mqar", 0), ("mqar", 1)],
            parts=[astuple(part) for part in self.registry.parts(mixers, ["mqar"])],
            installed=self.registry.fingerprint(),
            plugins=pack_plugins(self.registry),
            impl="auto",
            checkpoints=str(self.folder / "checkpoints"),
        )

    def stops(self, trial: int, result: dict[str, Any]) -> bool:
        assert not result["done"]
        return trial == STOPPED and "looks" in result

    def reported(self, trial: int, result: dict[str, Any]) -> None:
        kept = ("task", "seed", "step", "total_steps", "measurement", "done", "looks")
        self.results[trial].append({name: result[name] for name in kept if name in result})
        if result["done"]:
            self.running = 0
        if trial == ENDLESS or (trial == CUT and self.cuts and result.get("step", 0) >= CUT_AT):
            self.stop.set()
        if trial == KILLED:
            for process in trial_processes():
                os.kill(process, signal.SIGKILL)

    def placed(self, trial: int, place: Place) -> None:
        self.places[trial] = place.to_json()

    def failed(self, trial: int, failure: Failure) -> None:
        self.failures[trial] = failure.reason
        self.running = 0

    def gone(self, fault: str) -> None:
        raise AssertionError(fault)

    def stopped(self) -> None:
        """The results are written anyway."""


def trial_processes() -> list[int]:
    """Those of Tune's trials that descend from this process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = []
    for process in parents:
        above = process
        while above in parents and above != os.getpid():
            above = parents[above]
        with suppress(OSError):
            title = Path(f"/proc/{process}/cmdline").read_bytes()
            if above == os.getpid() and any(name in title for name in TRIAL_TITLES):
                found.append(process)
    return found


def main(count: int, folder: Path, only: int | None = None) -> None:
    orders = Orders(count, folder, only)
    with workers(2, None, device="cpu", stop=orders.stop, tell=print):
        train(orders, orders.stop, device="cpu", resources=ResourcesTable(workers=count))
    (folder / f"{count}.json").write_text(json.dumps({"results": orders.results, "failures": orders.failures}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
