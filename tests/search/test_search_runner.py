"""The runner on a real local Ray, in a process of its own: a whole search, Ctrl-C, a killed driver, a dead worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from database_kinds import SLOW_POSTGRESQL, SQLITE
from heartbeats import move
from tiny_spec import tiny_spec

from archsearch.search.checkpoint_place import checkpoint_folder
from archsearch.storage import Driver, Store

DRIVER = Path(__file__).with_name("search_driver.py")


class Driven:
    """A search of one temporary folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.said = ""
        self.environ = {
            **os.environ,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error::UserWarning",
            "PYTHONPATH": str(DRIVER.parent),
        }

    def command(self, verb: str, steps: int, search: str = "") -> list[str]:
        spec = self.folder / "tiny.toml"
        spec.write_text(tiny_spec(steps, search=search))
        return [sys.executable, str(DRIVER), verb, str(spec) if verb == "run" else "tiny", self.url]

    def finish(self, verb: str, steps: int = 3) -> str:
        done = subprocess.run(
            self.command(verb, steps), env=self.environ, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout

    @contextmanager
    def started(self, until: str, steps: int = 2000, search: str = "") -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.command("run", steps, search),
            env=self.environ,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                self.said += line
                if until in line:
                    break
            else:
                raise AssertionError(f"the driver ended before it said {until!r}")
            yield process
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.kill()
            process.wait()

    def states(self) -> list[str]:
        with Store.open(self.url) as store:
            return [trial.state for trial in store.trials(store.search("tiny").id)]

    def trained(self) -> list[str]:
        """The keys of what was trained, not reused."""
        with Store.open(self.url) as store:
            trials = [store.trial(trial.id) for trial in store.trials(store.search("tiny").id)]
        return [measured.key for trial in trials for measured in trial.measurements if measured.reused_from is None]

    def worker(self, number: int) -> int:
        """The process that trains a trial, by its number."""
        until = time.monotonic() + 900
        while time.monotonic() < until:
            with Store.open(self.url) as store:
                trials = store.trials(store.search("tiny").id)
            if len(trials) > number and trials[number].placement and trials[number].state == "running":
                return int(trials[number].placement["pid"])
            time.sleep(0.1)
        raise AssertionError("no worker is training")

    def state(self) -> str:
        with Store.open(self.url) as store:
            return store.search("tiny").state


pytestmark = pytest.mark.timeout(1800)  # real searches, on a machine that may be busy

on_every_database = pytest.mark.parametrize("driven", [SQLITE, SLOW_POSTGRESQL], indirect=True)


@pytest.fixture(params=[SQLITE])
def driven(request: pytest.FixtureRequest, tmp_path: Path) -> Driven:
    on_server = request.param == "postgresql"
    return Driven(tmp_path, request.getfixturevalue("postgres_url") if on_server else f"sqlite:///{tmp_path}/search.db")


@pytest.mark.field
@on_every_database
def test_ctrl_c_stops_cleanly_and_resume_trains_confirms_and_leaves_nothing_behind(driven: Driven) -> None:
    with driven.started(until="(reference) started", steps=150) as process:
        assert "possible candidates" in driven.said
        assert "meet the budget" in driven.said
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(900) == 130
    assert driven.state() == "cancelled"
    assert set(driven.states()) <= {"preempted", "complete"}
    assert "preempted" in driven.states()
    with Store.open(driven.url) as store:
        assert store.search("tiny").reason.endswith("archsearch resume tiny goes on")
    said = driven.finish("resume")
    assert "at most about" in said
    assert "(confirm) started" in said
    assert driven.state() == "complete"
    assert set(driven.states()) == {"complete"}
    assert len(driven.trained()) == len(set(driven.trained()))
    with Store.open(driven.url) as store:
        kinds = Counter(trial.kind for trial in store.trials(store.search("tiny").id))
    assert (kinds["reference"], kinds["search"]) == (2, 2)
    assert not list(driven.folder.glob("archsearch-*"))
    assert not list((driven.folder / "cache").rglob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["trial 1 (reference) started", "trial 2 (reference) started"])
def test_a_signal_to_ray_and_driver_together_leaves_the_store_in_order(driven: Driven, moment: str) -> None:
    with driven.started(until=moment, steps=100) as process:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(900)
    assert driven.state() == "cancelled"
    assert set(driven.states()) <= {"preempted", "complete"}


@pytest.mark.slow
@on_every_database
def test_a_killed_driver_is_taken_up_and_nothing_is_retrained(driven: Driven) -> None:
    with driven.started(until="complete after", steps=60) as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(900)
    assert {"queued", "running"} & set(driven.states())
    before = driven.trained()
    assert before
    with Store.open(driven.url) as store:
        assert store.search("tiny").state_now() == "interrupted"  # its process is gone: nobody waits a minute
    driven.finish("resume")
    assert driven.state() == "complete"
    assert set(driven.states()) == {"complete"}
    assert driven.trained()[: len(before)] == before
    assert len(driven.trained()) == len(set(driven.trained()))


ANOTHER = Driver(host="far", boot_id="another", pid_namespace="pid:[1]", pid=77, started=5)


@pytest.mark.slow
@on_every_database
def test_a_driver_that_was_paused_while_another_took_over_writes_nothing(driven: Driven) -> None:
    with driven.started(until="(reference) started", steps=150) as process, Store.open(driven.url) as store:
        os.kill(process.pid, signal.SIGSTOP)
        search = store.search("tiny").id
        with store._writing() as session:  # to who looks from elsewhere
            store._search_row(session, search).driver = ANOTHER.to_json()
        move(store, search, timedelta(hours=-1))
        seconds = count()
        record = store.claim_search(search, driver=ANOTHER, sleep=lambda _: None, clock=lambda: float(next(seconds)))
        before = store.trials_frame("tiny").to_dict("list"), store.metrics_frame("tiny").to_dict("list")
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(900) == 4
        after = store.trials_frame("tiny").to_dict("list"), store.metrics_frame("tiny").to_dict("list")
        assert repr(after) == repr(before)
        assert store.search("tiny") == record


def test_a_killed_worker_and_a_killed_driver_cost_nothing(driven: Driven) -> None:
    """The short form of `make soak`: the worker of the second trial, then the driver while it is tried again."""
    with driven.started(until="trial 2 (reference) started", steps=100, search="confirm_seeds = 0") as process:
        before = driven.trained()
        os.kill(driven.worker(1), signal.SIGKILL)
        assert process.stdout is not None
        said = next(line for line in process.stdout if line.startswith("trial 2 "))
        assert re.match(r"trial 2 preempted after .*: the worker died on .* \(SIGKILL\): tried again in 2 s", said)
        next(line for line in process.stdout if line.startswith("trial 2 (reference) started"))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(900)
    driven.finish("resume")
    with Store.open(driven.url) as store:
        trials = store.trials(store.search("tiny").id)
    assert {trial.state for trial in trials} == {"complete"}
    assert [trial.attempts for trial in trials][:2] == [0, 1]
    assert driven.trained()[: len(before)] == before
    assert len(driven.trained()) == len(set(driven.trained()))
    assert not list(driven.folder.glob("archsearch-*"))


def test_checkpoints_lie_in_the_cache_by_database_and_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = checkpoint_folder("sqlite:///a.db", "x", local=True)
    assert one.is_relative_to(tmp_path / "archsearch" / "checkpoints")
    assert one != checkpoint_folder("sqlite:///b.db", "x", local=True)
    assert one != checkpoint_folder("sqlite:///a.db", "y", local=True)
    assert str(checkpoint_folder("sqlite:///a.db", "x", local=False)).startswith("~")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert one != checkpoint_folder("sqlite:///a.db", "x", local=True), "a file of that name in another folder"


HOSTILE = """
name = "tiny"
[model]
d_model = 16
n_layers = 1
n_heads = 1
channel_mixer = "none"
[space]
mixers = ["hostile", "sliding"]
[space.sliding]
window = [8]
sinks = [0]
rope = [0.0]
[[tasks]]
name = "mqar"
setting = "easy"
[recipe]
steps = 3
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
context = 1024
[search]
trials = 6
confirm_seeds = 0
"""


@pytest.mark.field
def test_mixers_that_raise_crash_and_lie_take_only_their_own_trials(driven: Driven) -> None:
    """The first reference is the one that raises: the driver itself never trains."""
    command = driven.command("run", 3)
    Path(command[3]).write_text(HOSTILE)
    done = subprocess.run(command, env=driven.environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with Store.open(driven.url) as store:
        assert store.search("tiny").state == "complete"
        ended = {trial.pattern: (trial.state, trial.reason) for trial in store.trials(store.search("tiny").id)}
    states = {pattern: state for pattern, (state, _) in ended.items()}
    hostile = {pattern: reason for pattern, (_, reason) in ended.items() if "hostile" in pattern}
    assert len(hostile) == 4
    assert {states[pattern] for pattern in hostile} == {"failed"}
    assert {state for pattern, state in states.items() if pattern not in hostile} == {"complete"}
    assert 'mixer "hostile", layer 0: forward raised RuntimeError: a kernel failed' in hostile["hostile"]
    for way, said in (
        ("exits", "ended itself with exit code 1"),
        ("wrong shape", "layer 0"),
        ("builds nothing", "layer 0"),
    ):
        reason = next(reason for pattern, reason in hostile.items() if way in pattern)
        assert said in reason
