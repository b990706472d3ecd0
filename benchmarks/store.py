"""How long the store takes to keep a trial, beside Optuna's RDBStorage on the same databases in the same run.

python benchmarks/store.py [--trials 200] [--writers 8] [--repeats 3] [--sqlite | --postgresql] [--durable]

Every writer is a process with a search (a study) of its own, as every driver is. A trial has so many parameters,
objectives and intermediate values on both sides, each of which is written when a driver has it: the parameters with the
trial, the intermediate values of a trial one by one for Optuna, which knows no other way, and with the measurement for
the store, whose drivers get a curve with the training's result. The store keeps beside them what Optuna has not: the
architecture, two costs, the measurement with its key. Rounds alternate between the two. PostgreSQL is a server of the
benchmark's own on this machine; with --durable its commits reach the disk, else they do not, which leaves only what the
programs themselves take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from postgres_server import postgres_server  # noqa: E402

from archsearch.storage import Lease, MetricValue, NewTrial, Store, upgrade  # noqa: E402

OBJECTIVES = [
    {"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"},
    {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"},
]
WANTED = 3.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of one side: trials a second of all writers together, and the seconds of each trial."""

    rate: float
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many trials a writer writes, and of how many parameters and intermediate values each is."""

    trials: int
    params: int
    points: int


Write = Callable[[str, str, Size], list[float]]
"""Writes trials of a size into a search of some name at a database; returns the seconds of each."""


def main() -> None:
    """Prints a line for each side and database; ends with 1 where less than is wanted was reached."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--trials", type=int, default=200, help="of each writer")
    reader.add_argument("--params", type=int, default=8, help="of each trial")
    reader.add_argument("--points", type=int, default=5, help="intermediate values of each trial")
    reader.add_argument("--writers", type=int, default=8)
    reader.add_argument("--repeats", type=int, default=3)
    reader.add_argument("--sqlite", action="store_true", help="this database alone")
    reader.add_argument("--postgresql", action="store_true", help="this database alone")
    reader.add_argument("--durable", action="store_true", help="commits of the server reach the disk")
    given = reader.parse_args()
    print(
        f"{given.writers} writers x {given.trials} trials of {given.params} parameters, {len(OBJECTIVES)} objectives "
        f"and {given.points} intermediate values; {given.repeats} repeats: median (least to greatest)"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it", flush=True)
    reached = []
    if not given.postgresql:
        with tempfile.TemporaryDirectory() as folder:
            names = count()
            reached.append(compare("SQLite", lambda: f"sqlite:///{folder}/{next(names)}.db", given))
    if not given.sqlite:
        with postgres_server(durable=given.durable) as server:
            reached.append(compare("PostgreSQL", lambda: server.url(server.new_database()), given))
    if min(reached) < WANTED:
        raise SystemExit(f"below the {WANTED:.0f} times that are wanted: {min(reached):.1f}")


def compare(label: str, database: Callable[[], str], given: argparse.Namespace) -> float:
    """Rounds of both sides in turn, each on a new database; the median of how many times Optuna's rate ours is."""
    size = Size(trials=given.trials, params=given.params, points=given.points)
    rounds: dict[str, list[Round]] = {"archsearch": [], "Optuna": []}
    sides: dict[str, tuple[Callable[[str], object], Write]] = {
        "archsearch": (upgrade, write_store),
        "Optuna": (make_optuna, write_optuna),
    }
    for _ in range(given.repeats):
        for name, (make, write) in sides.items():
            url = database()
            make(url)
            rounds[name].append(one_round(write, url, given.writers, size))
    for name, found in rounds.items():
        seconds = sorted(second for one in found for second in one.seconds)
        p99 = seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
        rate = spread([one.rate for one in found], "trials/s")
        print(
            f"{label:<11}{name:<11}{rate:<38}a trial: median {statistics.median(seconds) * 1e3:6.1f} ms, "
            f"p99 {p99 * 1e3:6.1f} ms",
            flush=True,
        )
    times = [ours.rate / theirs.rate for ours, theirs in zip(rounds["archsearch"], rounds["Optuna"], strict=True)]
    print(f"{label:<11}{spread(times, 'times Optuna')}, wanted {WANTED:.0f}", flush=True)
    return statistics.median(times)


def spread(values: Sequence[float], unit: str) -> str:
    """The median and the range of some rounds."""
    return f"{statistics.median(values):.1f} {unit} ({min(values):.1f} to {max(values):.1f})"


def one_round(write: Write, url: str, writers: int, size: Size) -> Round:
    """All writers at once; what starting them takes does not count."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(writers)
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=_write, args=(write, url, f"search-{number}", size, ready, answers))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    failed = [answer for answer in found if isinstance(answer, str)]
    if failed:
        raise SystemExit("\n".join(failed))
    begun, ended = min(begun for begun, _, _ in found), max(ended for _, ended, _ in found)
    return Round(
        rate=writers * size.trials / (ended - begun), seconds=tuple(second for _, _, each in found for second in each)
    )


def _write(write: Write, url: str, name: str, size: Size, ready: Any, answers: Any) -> None:
    try:
        write(url, f"warm {name}", replace(size, trials=8))
        ready.wait()
        begun = time.time()
        each = write(url, name, size)
        answers.put((begun, time.time(), each))
    except Exception as error:  # the others and the report wait for this one
        ready.abort()
        answers.put(f"{name}: {type(error).__name__}: {error}")


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Adds how long the block takes."""
    begun = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - begun)


def choices(number: int, params: int) -> dict[str, float]:
    """The parameters of a trial."""
    return {f"layer{index}.window": (number * 31 + index) % 97 / 97 for index in range(params)}


def curve(number: int, points: int) -> list[float]:
    """The intermediate values of a trial."""
    return [1.0 / (1 + step + number % 7) for step in range(points)]


# -- the store -------------------------------------------------------------------------------------------------


def write_store(url: str, name: str, size: Size) -> list[float]:
    """Trials as a driver writes them: queued with its costs, running, measured, and complete with its composite."""
    seconds: list[float] = []
    with Store.open(url) as store:
        lease = Lease(store, store.create_search(name, {}, OBJECTIVES))
        for number in range(size.trials):
            with timed(seconds):
                trial = lease.add_trial(lease.search_id, _new_trial(name, number, size.params))
                lease.set_trial_state(trial, "running")
                scores = {"mqar.accuracy": 0.5}
                by_split = {"validation": scores, "test": scores}
                lease.add_measurement(trial, _measurement(name, number, size.points), by_split)
                recall = [MetricValue(name="recall", split=split, value=0.5, seed=0) for split in by_split]
                lease.set_trial_state(trial, "complete", metrics=recall)
    return seconds


def _new_trial(name: str, number: int, params: int) -> NewTrial:
    return NewTrial(
        kind="search",
        state="queued",
        arch={"layers": [{"mixer": "sliding", "options": {"window": 64}} for _ in range(params)]},
        digest=f"{name}-{number}",
        pattern=f"sliding(window=64)*{params}",
        params=choices(number, params),
        seeds=[0],
        costs={"state_bytes@32768": 1e6 + number, "decode_flops@32768": 1e9},
        violations={},
    )


def _measurement(name: str, number: int, points: int) -> dict[str, Any]:
    return {
        "key": f"{name}-{number}",
        "task": "mqar",
        "seed": 0,
        "status": "complete",
        "reason": None,
        "validation": {"accuracy": 0.5},
        "test": {"accuracy": 0.5},
        "curve": [{"step": step, "loss": value} for step, value in enumerate(curve(number, points))],
        "unexercised": [],
    }


# -- Optuna ----------------------------------------------------------------------------------------------------


def make_optuna(url: str) -> object:
    """Optuna's tables."""
    return _optuna(url)


def write_optuna(url: str, name: str, size: Size) -> list[float]:
    """The same trials: made, its parameters, its intermediate values, its end."""
    from optuna.distributions import FloatDistribution
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    seconds: list[float] = []
    storage = _optuna(url)
    study = storage.create_new_study([StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], name)
    distribution = FloatDistribution(0.0, 1.0)
    for number in range(size.trials):
        with timed(seconds):
            trial = storage.create_new_trial(study)
            for key, value in choices(number, size.params).items():
                storage.set_trial_param(trial, key, value, distribution)
            for step, value in enumerate(curve(number, size.points)):
                storage.set_trial_intermediate_value(trial, step, value)
            storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5, 1e6 + number])
    storage.engine.dispose()
    return seconds


def _optuna(url: str) -> Any:
    import logging

    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    driver = "postgresql+psycopg://" if url.startswith("postgresql") else "sqlite://"
    options = {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url.replace(url.partition("://")[0] + "://", driver, 1), engine_kwargs=options)


if __name__ == "__main__":
    main()
