"""Has two trials trained at a time by two workers of a local Ray, each with a GPU that Ray believes in and a card that
a plugin plays; then asks a worker ahead of a search, and writes a report, as ``FOLDER``."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from stand_in_card import StandInCard, started

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.recipe import Recipe
from archsearch.registry import load_registry
from archsearch.search.actor import Assignment, pack_plugins
from archsearch.search.failures import Failure, Place
from archsearch.search.kernels_ahead import proven_ahead
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.tables.resources import ResourcesTable
from archsearch.search.workers import train
from archsearch.tasks import resolve_task

TRIALS = 2
RECIPE = {"steps": 1, "batch_size": 64, "eval_every": 1, "learning_rates": [0.01]}


class Orders:
    """A source of equal trials of different seeds, all at once."""

    def __init__(self, folder: Path) -> None:
        self.registry, self.folder = load_registry(), folder
        self.registry.add(StandInCard())
        self.task = resolve_task("mqar", self.registry, options={"seq_len": 16, "pairs": 2, "rewrites": 0})
        self.left, self.running = list(range(TRIALS)), set[int]()
        self.measured: dict[int, Any] = {}
        self.failures: dict[int, str] = {}
        self.pids: dict[int, int] = {}
        model = ModelSpec(d_model=16, n_heads=1, head_dim=16, channel_mixer="none", vocab_size=self.task.vocab_size)
        self.arch = ArchSpec.parse("sliding(window=8)", self.registry, model)
        self.recipe = Recipe.read(RECIPE)

    @property
    def done(self) -> bool:
        return not self.left and not self.running

    def next(self) -> TrialOrder | None:
        if not self.left:
            return None
        trial = self.left.pop(0)
        self.running.add(trial)
        return TrialOrder(trial=trial, kind="search", arch=self.arch, pattern="", runs=(Run("mqar", trial),))

    def assignment(self, order: TrialOrder) -> Assignment:
        return Assignment(
            trial=order.trial,
            arch=order.arch.to_json(),
            tasks={"mqar": self.task.to_json()},
            recipe=self.recipe.model_dump(mode="json"),
            runs=[("mqar", order.trial)],
            parts=[astuple(part) for part in self.registry.parts(["sliding"], ["mqar"])],
            installed=self.registry.fingerprint(),
            plugins=pack_plugins(self.registry),
            impl="auto",
            checkpoints=str(self.folder / "checkpoints"),
        )

    def stops(self, trial: int, result: dict[str, Any]) -> bool:
        return False

    def reported(self, trial: int, result: dict[str, Any]) -> None:
        if "measurement" in result:
            self.measured[trial] = json.loads(result["measurement"])
        if result["done"]:
            self.running.discard(trial)

    def placed(self, trial: int, place: Place) -> None:
        self.pids[trial] = place.to_json()["pid"]

    def failed(self, trial: int, failure: Failure) -> None:
        self.failures[trial] = failure.reason
        self.running.discard(trial)

    def gone(self, fault: str) -> None:
        raise AssertionError(fault)

    def stopped(self) -> None:
        """The report says it."""


def main(folder: Path) -> None:
    orders, stop, notes = Orders(folder), threading.Event(), list[str]()
    ray.init(
        address="local",
        num_cpus=TRIALS,
        num_gpus=TRIALS,
        object_store_memory=10**8,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=os.environ["TMPDIR"],
    )
    try:
        train(orders, stop, device="cuda", resources=ResourcesTable())
        proven = started()
        problem: Any = SimpleNamespace(
            space=SimpleNamespace(layers=orders.arch.layers, backbones=SimpleNamespace(models=[orders.arch.model])),
            references=[],
            spec=SimpleNamespace(training=orders.recipe),
        )
        demand = {"cpu": 1.0, "gpu": 1.0}
        uses = proven_ahead(problem, demand, pack_plugins(orders.registry), stop=stop, tell=notes.append)
    finally:
        ray.shutdown()
    report = {
        "measured": orders.measured,
        "failures": orders.failures,
        "pids": orders.pids,
        "proven": proven,
        "proven_later": started()[len(proven) :],
        "uses": sorted(uses),
        "notes": notes,
    }
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
