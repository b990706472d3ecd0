"""What a driver and its database cost for each trial, and trials an hour against workers, with trials that sleep.

python benchmarks/scaling.py driver [--trials 1000] [--sampler nsga2] [--database URL]
python benchmarks/scaling.py workers [--workers 1,2,4,8,16,32] [--seconds 10] [--waves 4]
                                     [--both | --postgresql] [--json FILE]

`driver`: trials that take no time, without Ray: what drawing, judging and storing cost, as CPU seconds of the process,
and as statements and round trips of the database. `workers`: the whole driver with Ray Tune on this machine, whose
workers sleep in place of training, each on a small share of a core. The rate is that from the end of the first wave of
trials, one to a worker, to the last end, so that no start of Ray or of a worker is in it; so are the driver's seconds.
The database is a new SQLite file; for `driver` a URL may name another (an empty PostgreSQL one, for instance), with
`--both` workers are measured on PostgreSQL too, a server of the benchmark's own. `--json FILE` keeps what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from archsearch.storage import Store, upgrade
from archsearch.training import form_of, measurement_key

ROOT = Path(__file__).parents[1]
LAYERS = 12
CPU = 0.05
"""What a sleeping worker takes of a core, in Ray's sums: 32 of them fit on two."""
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


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What trials that sleep came to with so many workers, from the end of the first wave of them to the last end."""

    database: str
    workers: int
    seconds: float
    reports: int
    trials: int
    trials_an_hour: float
    driver_cpu: float
    statements: float
    load: float
    measured: str


class SleepingActor(tune.Trainable):  # type: ignore[misc]
    """In place of `TrialActor`: each run of a trial is a sleep, with as many reports as are asked for."""

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the assignment."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial."""
        self._trial = new_config["trial"]
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
        told["trial"] = self._trial
        return {**told, **({"measurement": ""} if ended else {}), "done": not self._slices}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is kept."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing is kept."""


def problem(name: str, *, trials: int, concurrency: int, sampler: str) -> Problem:
    """A search over a space of many candidates, with the installed mixers and their costs."""
    spec = {
        "name": name,
        "model": {"d_model": 64, "n_layers": LAYERS, "n_heads": 2},
        "space": {"mixers": ["full", "sliding", "linear"], "sliding": {"window": [4, 8, 16]}},  # all act on 48 tokens
        "tasks": [{"name": "mqar", "setting": "easy"}],
        "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"], "context": 32768},
        "search": {"trials": trials, "concurrency": concurrency, "sampler": sampler, "confirm_seeds": 0},
        "resources": {"cpu": CPU},
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


def with_ray(posed: Problem, database: str, count: int, seconds: float, reports: int) -> Rate:
    """The driver with Ray Tune, whose workers sleep; the measurement is made here, where its key is known."""
    global SLEEP
    SLEEP = (seconds, reports)
    report, ends = Drive.reported, list[tuple[float, float, int]]()

    def reported(self: Drive, trial: int, result: dict[str, Any]) -> None:
        order = next((one for one in self.campaign.running if one.trial == trial), None)
        if order is not None and "measurement" in result:
            result = {**result, "measurement": json.dumps(measured(posed, order, Run(result["task"], result["seed"])))}
        report(self, trial, result)
        if result["done"]:
            ends.append((time.monotonic(), time.process_time(), counts["statements"]))

    with (
        replaced(workers, TrialActor=SleepingActor),
        replaced(Drive, reported=reported),
        Store.open(database) as store,
        counted() as counts,
    ):
        run_search(posed, store=store)
    (begun, cpu, asked), (ended, cpu_then, asked_then) = ends[count - 1], ends[-1]
    trials = len(ends) - count
    return Rate(
        database=database.partition(":")[0].partition("+")[0],
        workers=count,
        seconds=seconds,
        reports=reports,
        trials=trials,
        trials_an_hour=3600 * trials / (ended - begun),
        driver_cpu=(cpu_then - cpu) / trials,
        statements=(asked_then - asked) / trials,
        load=os.getloadavg()[0],
        measured=time.strftime("%Y-%m-%d"),
    )


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
    """Trials an hour against workers, on one database or both, each time in a new one, where nothing is measured."""
    counts = [int(text) for text in options.workers.split(",")]
    rates = ((count, database.replace("searches", f"workers-{count}")) for count in counts)
    if not options.postgresql:
        _show_rates(options, rates)
    if not (options.both or options.postgresql):
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from postgres_server import postgres_server

    with postgres_server() as server:
        databases = {server.url(server.new_database()): count for count in counts}
        for one in databases:
            upgrade(one)
        _show_rates(options, ((count, one) for one, count in databases.items()))


def _show_rates(options: argparse.Namespace, rates: Iterable[tuple[int, str]]) -> None:
    found = []
    print("| database | workers | trials | trials an hour | of what sleeping allows | driver CPU ms a trial | load |")
    print("|---|---|---|---|---|---|---|")
    for count, database in rates:
        trials = options.waves * count
        posed = problem(f"workers-{count}", trials=trials, concurrency=count, sampler=options.sampler)
        rate = with_ray(posed, database, count, options.seconds, options.reports)
        found.append(asdict(rate))
        share = rate.trials_an_hour * options.seconds / 3600 / count
        print(
            f"| {rate.database} | {count} | {rate.trials} | {rate.trials_an_hour:,.0f} | {100 * share:.0f} % "
            f"| {1000 * rate.driver_cpu:.0f} | {rate.load:.1f} |",
            flush=True,
        )
        if options.json:
            told = json.loads(options.json.read_text())["rates"] if options.json.exists() else []
            others = [one for one in told if one["database"] != rate.database]
            held = {"cores": os.cpu_count(), "rates": [*others, *found]}
            options.json.write_text(json.dumps(held, indent=1) + "\n")


def main() -> None:
    """Reads the options and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["driver", "workers"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sampler", default="nsga2")
    parser.add_argument("--workers", default="1,2,4,8,16,32")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--reports", type=int, default=10, help="reports of a trial")
    parser.add_argument("--waves", type=int, default=4, help="trials for each worker")
    parser.add_argument("--both", action="store_true", help="PostgreSQL too")
    parser.add_argument("--postgresql", action="store_true", help="PostgreSQL alone")
    parser.add_argument("--json", type=Path, help="a file for what was measured")
    parser.add_argument("--database", help="URL; a new SQLite file by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or f"sqlite:///{Path(folder) / 'searches.db'}"
        {"driver": show_driver, "workers": show_workers}[options.what](options, database)
        print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
