"""What a driver and its database cost for each trial, and trials an hour against workers, with trials that sleep.

python benchmarks/scaling.py driver [--trials 1000] [--sampler nsga2] [--database URL]
python benchmarks/scaling.py workers [--workers 1,2,4,8] [--seconds 2] [--reports 1] [--each 20] [--database URL]

`driver`: trials that take no time, without Ray: what drawing, judging and storing cost, as CPU seconds of the process,
and as statements and round trips of the database. `workers`: the whole driver with Ray Tune on this machine, whose
workers sleep in place of training; a trial's seconds, all of them on the busiest core, bound what one driver can do.
The database is a new SQLite file unless a URL names another (an empty PostgreSQL one, for instance).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from sqlalchemy import Engine, event

from archsearch.measurement import Measurement
from archsearch.registry import load_registry
from archsearch.search import Problem, SearchSpec, drive, run_search, workers
from archsearch.search.drive import Drive
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.ray_session import Workers
from archsearch.storage import Store
from archsearch.training import form_of, measurement_key

LAYERS = 12
SLEEP = (1.0, 1)
"""Seconds of a run, and reports in it; pickled with the actor."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one search took: trials of every kind that ended, and seconds."""

    trials: int
    wall: float
    driver_cpu: float
    statements: int
    commits: int


class SleepingActor(tune.Trainable):  # type: ignore[misc]
    """In place of `TrialActor`: each run of a trial is a sleep, with as many reports as are asked for."""

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the assignment."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial."""
        seconds, reports = SLEEP
        runs = json.loads(new_config["assignment"])["runs"]
        self._slices = [(task, seed, number == reports) for task, seed in runs for number in range(1, reports + 1)]
        self._seconds = seconds / reports
        return True

    def step(self) -> dict[str, Any]:
        """A slice of a run."""
        task, seed, ended = self._slices.pop(0)
        time.sleep(self._seconds)
        told = {"task": task, "seed": seed, "step": 1, "total_steps": 1, "value": 0.5, "note": ""}
        return {**told, **({"measurement": ""} if ended else {}), "done": not self._slices}


def problem(name: str, *, trials: int, concurrency: int, sampler: str) -> Problem:
    """A search over a space of many candidates, with the installed mixers and their costs."""
    spec = {
        "name": name,
        "model": {"d_model": 64, "n_layers": LAYERS, "n_heads": 2},
        "space": {"mixers": ["full", "sliding", "linear"], "sliding": {"window": [4, 8, 16]}},  # all act on 48 tokens
        "tasks": [{"name": "mqar", "setting": "easy"}],
        "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"], "context": 32768},
        "search": {"trials": trials, "concurrency": concurrency, "sampler": sampler},
    }
    return Problem.of(SearchSpec.from_dict(spec), load_registry())


def measured(problem: Problem, order: TrialOrder, run: Run) -> dict[str, Any]:
    """What a worker would hand in: a score that depends on the candidate, and a curve of 20 points."""
    task, recipe = problem.tasks[run.task], problem.spec.recipe
    score = int(order.arch.digest[:6], 16) / 16**6
    return Measurement(
        key=measurement_key(order.arch, task, recipe, run.seed, problem.registry, device="cpu", form=form_of("cpu")),
        digest=order.arch.digest,
        pattern=order.pattern,
        arch=order.arch.to_json(),
        task=task.label,
        task_options=task.to_json(),
        metric=task.metric,
        direction=task.direction,
        recall=task.recall,
        chance=task.chance,
        recipe=recipe.model_dump(mode="json"),
        seed=run.seed,
        status="complete",
        validation={task.metric: score},
        test={task.metric: score},
        curve=tuple({"step": step, task.metric: score} for step in range(20)),
    ).to_json()


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts statements and transactions of every engine."""
    counts = {"statements": 0, "commits": 0}

    def count(name: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            counts[name] += 1

        return note

    listeners = [("before_cursor_execute", count("statements")), ("commit", count("commits"))]
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield counts
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of a module or a class, for a while."""
    before = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def searched(posed: Problem, database: str) -> Told:
    """Runs the search and tells what it took."""
    with Store.open(database) as store, counted() as counts:
        begun, cpu = time.monotonic(), time.process_time()
        run_search(posed, store=store)
        wall, cpu = time.monotonic() - begun, time.process_time() - cpu
        ended = store.trial_counts(store.search(posed.spec.name).id).get("complete", 0)
    return Told(trials=ended, wall=wall, driver_cpu=cpu, **counts)


def without_ray(posed: Problem, database: str) -> Told:
    """The driver alone: every order is answered at once."""

    @contextmanager
    def here(*_: Any, **__: Any) -> Iterator[Workers]:
        yield Workers(local=True, device="cpu")

    def train(source: Any, stop: Any, **_: Any) -> None:
        while not stop.is_set():
            order = source.next()
            if order is None:
                if source.done:
                    return
                continue
            source.assignment(order)
            for number, run in enumerate(order.runs, start=1):
                told = {"task": run.task, "seed": run.seed, "step": 1, "total_steps": 1, "value": 0.5, "note": ""}
                found = json.dumps(measured(posed, order, run))
                source.reported(order.trial, {**told, "measurement": found, "done": number == len(order.runs)})

    with replaced(drive, workers=here, train=train):
        return searched(posed, database)


def with_ray(posed: Problem, database: str, seconds: float, reports: int) -> Told:
    """The driver with Ray Tune, whose workers sleep; the measurement is made here, where its key is known."""
    global SLEEP
    SLEEP = (seconds, reports)
    report = Drive.reported

    def reported(self: Drive, trial: int, result: dict[str, Any]) -> None:
        order = next((one for one in self.campaign.running if one.trial == trial), None)
        if order is not None and "measurement" in result:
            result = {**result, "measurement": json.dumps(measured(posed, order, Run(result["task"], result["seed"])))}
        report(self, trial, result)

    with replaced(workers, TrialActor=SleepingActor), replaced(Drive, reported=reported):
        return searched(posed, database)


def show_driver(options: argparse.Namespace, database: str) -> None:
    """Costs of a trial, of the first and of as many more."""
    print("| trials | CPU ms a trial | statements a trial | transactions a trial | trials an hour, at most |")
    print("|---|---|---|---|---|")
    for trials in (options.trials // 4, options.trials):
        posed = problem(f"driver-{trials}", trials=trials, concurrency=1, sampler=options.sampler)
        told = without_ray(posed, database)
        each = told.driver_cpu / told.trials
        print(
            f"| {told.trials:,} | {1000 * each:.1f} | {told.statements / told.trials:.1f} "
            f"| {told.commits / told.trials:.1f} | {3600 / each:,.0f} |",
            flush=True,
        )


def show_workers(options: argparse.Namespace, database: str) -> None:
    """Trials an hour against workers."""
    print("| workers | trials | trials an hour | of what sleeping allows | driver CPU ms a trial | peak MiB |")
    print("|---|---|---|---|---|---|")
    for count in map(int, options.workers.split(",")):
        posed = problem(f"workers-{count}", trials=options.each * count, concurrency=count, sampler=options.sampler)
        told = with_ray(posed, database, options.seconds, options.reports)
        ideal = count * 3600 / options.seconds
        rate = 3600 * told.trials / told.wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"| {count} | {told.trials:,} | {rate:,.0f} | {100 * rate / ideal:.0f} % "
            f"| {1000 * told.driver_cpu / told.trials:.1f} | {peak:.0f} |",
            flush=True,
        )


def main() -> None:
    """Reads the options and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["driver", "workers"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", default="nsga2")
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--reports", type=int, default=1, help="reports of a trial")
    parser.add_argument("--each", type=int, default=20, help="trials for each worker")
    parser.add_argument("--database", help="URL; a new SQLite file by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or f"sqlite:///{Path(folder) / 'searches.db'}"
        {"driver": show_driver, "workers": show_workers}[options.what](options, database)
        print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
