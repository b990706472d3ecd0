"""A trial that two workers of a real local Ray train gives what one gives: records, progress, failures, a stop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from clocks import Time
from data_parallel_driver import CUT, CUT_AT, CUT_STEPS, ENDLESS, KILLED, STOPPED

from archsearch.errors import SpecError
from archsearch.measurement import Measurement
from archsearch.search.actor import PROVING, WAITING
from archsearch.search.data_parallel import causes, telling
from archsearch.search.failures import CrashError, died
from archsearch.search.limits import Limits
from archsearch.search.mailbox import Mailbox
from archsearch.search.workers import _Observer, _Stopper

DRIVER = Path(__file__).with_name("data_parallel_driver.py")
NODE = re.compile(r"\(node [0-9a-f]+\)")
"""Of each Ray another one."""
SECONDS = 1500
"""Far beyond the half minute that a driver takes where the machine does nothing else."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What the driver was told, by the number of workers to a trial."""
    folder = tmp_path_factory.mktemp("trials")
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DRIVER.parent), "TMPDIR": str(folder)}
    for count in (1, 2):
        command = [sys.executable, str(DRIVER), str(count), str(folder)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return {count: json.loads((folder / f"{count}.json").read_text()) for count in (1, 2)}


def measurements(report: Any, trial: int) -> list[Measurement]:
    """Those of a trial."""
    told = [result["measurement"] for result in report["results"][str(trial)] if "measurement" in result]
    return [Measurement.from_json(json.loads(text)) for text in told]


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_two_workers_give_the_records_of_one(reports: dict[int, Any]) -> None:
    one, two = (measurements(reports[count], 1) for count in (1, 2))
    assert [found.seed for found in two] == [0, 1]
    for alone, shared in zip(one, two, strict=True):
        assert shared.key == alone.key
        assert shared.status == alone.status == "complete"
        assert shared.validation == pytest.approx(alone.validation, abs=1e-4)
        assert shared.test == pytest.approx(alone.test, abs=1e-4)
        assert [look["loss"] for look in shared.curve] == pytest.approx(
            [look["loss"] for look in alone.curve], rel=1e-4
        )
        assert (shared.versions.pop("workers"), alone.versions.get("workers")) == ("2", None)
        assert shared.versions == alone.versions


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_two_workers_report_as_one(reports: dict[int, Any]) -> None:
    for count in (1, 2):
        first, last = (reports[count]["results"]["1"][at] for at in (0, -1))
        assert (first["done"], last["done"]) == (False, True)
        assert (last["task"], last["seed"], last["step"], last["total_steps"]) == ("mqar", 1, 4, 4)
        endless = reports[count]["results"][str(ENDLESS)]
        assert endless
        assert not any(result["done"] for result in endless)


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_a_failure_in_a_group_is_told_as_in_one_worker(reports: dict[int, Any]) -> None:
    one, two = (
        {trial: NODE.sub("(node)", told) for trial, told in reports[count]["failures"].items()} for count in (1, 2)
    )
    assert two == one
    assert "a kernel failed" in two["2"]
    assert "the worker's process ended itself with exit code 1" in two["3"]
    assert "it was killed from outside (SIGKILL)" in two[str(KILLED)]
    assert set(two) == {"2", "3", str(KILLED)}


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_what_a_killed_trial_had_reserved_is_there_for_the_next(reports: dict[int, Any]) -> None:
    for count in (1, 2):
        assert not any(result["done"] for result in reports[count]["results"][str(KILLED)])
        assert reports[count]["results"]["1"][-1]["done"]


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
def test_a_trial_that_is_stopped_leaves_its_workers_to_the_next(reports: dict[int, Any]) -> None:
    for count in (1, 2):
        stopped = reports[count]["results"][str(STOPPED)]
        assert [result["done"] for result in stopped] == [*[False] * (len(stopped) - 1), True]
        assert stopped[-1]["looks"][0][0] == 2
        assert not any("measurement" in result for result in stopped)
        looks = [result["looks"] for result in reports[count]["results"]["1"] if "looks" in result]
        assert [step for step, _ in looks[-1]] == [2, 4]


def trained(folder: Path, **environ: str) -> Any:
    """What the driver was told of one trial by two workers, whose checkpoints lie in `folder`."""
    told = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DRIVER.parent), "TMPDIR": str(folder), **environ}
    command = [sys.executable, str(DRIVER), "2", str(folder), str(CUT)]
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "2.json").read_text())
    assert report["failures"] == {}
    return report


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS)
def test_a_trial_of_two_workers_that_is_cut_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("cut", "whole")}
    for folder in folders.values():
        folder.mkdir()
    cut = trained(folders["cut"], CUT="yes")["results"][str(CUT)]
    assert not any("measurement" in result for result in cut)
    assert list((folders["cut"] / "checkpoints").rglob("*.pt")), "there is something to go on from"
    later, whole = (trained(folder) for folder in folders.values())
    steps = [result["step"] for result in later["results"][str(CUT)] if result.get("seed") == 0]
    assert CUT_AT <= min(steps) < CUT_STEPS, "what is trained is not trained again"
    for one, other in zip(measurements(later, CUT), measurements(whole, CUT), strict=True):
        assert (one.key, one.status) == (other.key, "complete")
        assert one.validation == pytest.approx(other.validation, abs=1e-4)
        assert one.test == pytest.approx(other.test, abs=1e-4)
        assert [look["loss"] for look in one.curve] == pytest.approx([look["loss"] for look in other.curve], rel=1e-4)
    assert not list((folders["cut"] / "checkpoints").rglob("*.pt")), "what is trained leaves none behind"


class PackedError(Exception):
    """An error as Ray hands it on."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("packed")
        self.cause = cause


OWN, DEAD, RESET = SpecError("own"), ray.exceptions.RayActorError(), RuntimeError("Connection reset by peer")


@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ([PackedError(RESET), PackedError(OWN)], OWN),
        ([OWN], OWN),
        ([PackedError(RESET), DEAD], DEAD),
        ([PackedError(RESET)], RESET),
    ],
    ids=["another-raised", "itself", "another-died", "only-this"],
)
def test_of_all_that_a_group_raised_the_telling_error_is_taken(
    errors: list[BaseException], found: BaseException
) -> None:
    assert telling(errors) is found


class UnheardError(Exception):
    """What Ray Train makes of a worker that does not answer it."""

    def __init__(self, failure: BaseException) -> None:
        super().__init__("a worker health check failed")
        self.health_check_failure = failure


def test_what_ray_train_makes_of_an_error_is_taken_off() -> None:
    group = ray.train.WorkerGroupError("both failed", {0: RESET, 1: UnheardError(DEAD)})
    assert causes(group) == [RESET, DEAD]
    assert causes(ray.train.ControllerError(PackedError(OWN))) == [OWN]
    assert causes(DEAD) == [DEAD]


def test_workers_that_could_not_begin_are_tried_again() -> None:
    (cause,) = causes(ray.train.ControllerError(RuntimeError("no port is free")))
    assert isinstance(cause, CrashError)
    assert died(cause)
    assert cause.said == "the workers of the trial could not begin: RuntimeError: no port is free"


def test_a_trial_that_waits_for_its_workers_goes_beyond_no_limit() -> None:
    time = Time()
    limits = Limits(max_seconds=10.0, max_silence=5.0, clock=time.clock)
    told: list[Any] = []
    source = SimpleNamespace(reported=lambda *what: told.append(what), placed=lambda *what: told.append(what))
    observer = _Observer(source, limits)  # type: ignore[arg-type]
    trial = SimpleNamespace(trial_id="one", config={"trial": 1})
    observer.on_trial_start(0, [trial], trial)
    for _ in range(10):
        time.sleep(4.0)
        observer.on_trial_result(0, [trial], trial, {WAITING: True, "done": False})
        assert limits.exceeded() == {}
    assert told == []
    time.sleep(6.0)
    assert "no step in 5 s" in limits.exceeded()["one"]


def test_a_trial_that_proves_kernels_goes_beyond_no_limit_and_tells_nobody() -> None:
    time = Time()
    limits = Limits(max_seconds=10.0, max_silence=5.0, clock=time.clock)
    told: list[Any] = []
    source = SimpleNamespace(
        reported=lambda *what: told.append(what), placed=lambda *what: None, stops=lambda *what: told.append(what)
    )
    observer = _Observer(source, limits)  # type: ignore[arg-type]
    stopper = _Stopper(source, threading.Event())  # type: ignore[arg-type]
    trial = SimpleNamespace(trial_id="one", config={"trial": 1})
    observer.on_trial_start(0, [trial], trial)
    for _ in range(3):
        result = {PROVING: 390.0, "done": False}
        observer.on_trial_result(0, [trial], trial, result)
        assert not stopper("one", result)
        time.sleep(100.0)
        assert limits.exceeded() == {}
    observer.on_trial_result(0, [trial], trial, {"trial": 1, "done": False})
    time.sleep(4.0)
    assert limits.exceeded() == {}
    time.sleep(2.0)
    assert "no step in 5 s" in limits.exceeded()["one"]
    assert [what[1] for what in told] == [{"trial": 1, "done": False}]


def test_the_mailbox_gives_all_workers_the_same_and_its_leader_an_answer() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        early = [asyncio.create_task(mailbox.assignment(0)) for _ in range(2)]
        await mailbox.assign({"assignment": "first"})
        assert await asyncio.gather(*early) == [{"assignment": "first"}] * 2
        for rank in (1, 0):
            await mailbox.placed(rank, {"pid": rank})
        assert await mailbox.places() == [{"pid": 0}, {"pid": 1}]
        for go_on in (True, False):
            offered = asyncio.create_task(mailbox.offer({"done": False}))
            assert await mailbox.coming() == {"done": False}
            assert not offered.done()
            await mailbox.answer(go_on)
            assert await offered is go_on
        assert await mailbox.offer({"done": True}), "nothing follows the last"
        assert await mailbox.assign(None)
        assert await mailbox.assignment(1) is None

    asyncio.run(exchange())


def test_workers_without_a_trial_end_together_and_take_no_other() -> None:
    async def exchange() -> None:
        mailbox = Mailbox()
        assert await mailbox.assign({"assignment": "first"})
        waiting = [asyncio.create_task(mailbox.assignment(1, idle)) for idle in (60.0, 0.01)]
        assert await asyncio.gather(*waiting) == [None, None]
        assert not await mailbox.assign({"assignment": "second"})
        assert await mailbox.assignment(1) is None

    asyncio.run(exchange())
