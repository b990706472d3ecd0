"""A soak: rounds in which a part of a running search is killed at a random moment, and what they cost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from postgres_server import PostgresServer
from tiny_spec import tiny_spec

from archsearch.errors import StorageError
from archsearch.storage import Store, TrialRecord

LIMIT = 600.0
"""Seconds after which a search that does not end is a fault."""
SPEC = tiny_spec("{steps}", name="{name}", seed="{seed}", recipe="checkpoint_seconds = 1", search="confirm_seeds = 0")


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round cost: trials that are not complete after it, those left running, measurements of complete trials
    that were made again, seconds from the kill to the next trial that a worker had, and how often it was resumed."""

    target: str
    lost: int
    running: int
    retrained: int
    seconds: float
    resumed: int


class Soak:
    """Searches of one folder and one database."""

    def __init__(self, folder: Path, url: str, *, steps: int = 80, server: PostgresServer | None = None) -> None:
        self.folder, self.url, self._steps, self._server = folder, url, steps, server
        self.python, self._specs = sys.executable, 0
        self._chance, self.prefix = random.Random(12), list[str]()
        self.environ = {
            **os.environ,
            "ARCHSEARCH_STORAGE": url,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
            "RAY_raylet_start_wait_time_s": "240",  # a machine that is busy with killing and starting
            "RAY_agent_register_timeout_ms": "600000",  # else a raylet ends whose agent is slow to come
        }

    def spec(self, name: str, text: str = SPEC) -> Path:
        """A spec's file; each has another seed, so that nothing of it is measured already."""
        file = self.folder / f"{name}.toml"
        self._specs += 1
        file.write_text(text.format(name=name, steps=self._steps, seed=self._specs))
        return file

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`archsearch WORDS` in a process group of its own."""
        command = [*self.prefix, str(Path(sys.executable).with_name("archsearch")), *words]
        with (self.folder / f"{words[0]}.log").open("a") as log:
            return subprocess.Popen(
                command, env=self.environ, cwd=self.folder, stdout=log, stderr=log, text=True, start_new_session=True
            )

    def trials(self, name: str) -> list[TrialRecord]:
        """The trials, with their measurements."""
        with Store.open(self.url) as store:
            return [store.trial(trial.id) for trial in store.trials(store.search(name).id)]

    def state(self, name: str) -> tuple[str, str]:
        """The search's state and reason."""
        with Store.open(self.url) as store:
            record = store.search(name)
            return record.state, record.reason

    def training(self, name: str, process: subprocess.Popen[str]) -> TrialRecord:
        """A trial that a worker has."""
        return waited_for(lambda: next(self.placed(name), None), process, f"{name}: no trial was given to a worker")

    def placed(self, name: str) -> Iterator[TrialRecord]:
        """The trials that workers have; none of a search that is not there yet."""
        with suppress(StorageError):
            yield from (trial for trial in self.trials(name) if trial.state == "running" and trial.placement)

    def round(self, name: str, target: str) -> Round:
        """Begins a search, kills `target` ("driver", "worker", "raylet" or "database") at a random moment, and goes on
        until the search is complete."""
        process = self.start("run", str(self.spec(name)))
        try:
            trial = self.training(name, process)
            time.sleep(self._chance.uniform(0.0, 3.0))
            done = {found.id: found.finished_at for found in self.trials(name) if found.state == "complete"}
            killed = datetime.now(UTC)
            self._kill(target, process, trial)
            process.wait(LIMIT)
        finally:
            end(process)
        resumed = self.finish(name)
        return self._told(name, target, killed, done, resumed)

    def finish(self, name: str) -> int:
        """Resumes the search until it is complete; how often that took."""
        for resumed in range(4):
            if self.state(name)[0] == "complete":
                return resumed
            process = self.start("resume", name)
            try:
                process.wait(LIMIT)
            finally:
                end(process)
        raise AssertionError(f"{name} does not come to an end: {self.state(name)}\n{self.log()}")

    def _kill(self, target: str, process: subprocess.Popen[str], trial: TrialRecord) -> None:
        if target == "driver":
            process.kill()
        elif target == "worker":
            assert trial.placement is not None
            with suppress(ProcessLookupError):  # it may have ended with its trial
                os.kill(trial.placement["pid"], signal.SIGKILL)
        elif target == "raylet":
            os.kill(child(process.pid, "/raylet"), signal.SIGKILL)
        else:
            assert self._server is not None
            self._server.kill()
            time.sleep(self._chance.uniform(0.0, 3.0))
            self._server.start()

    def _told(self, name: str, target: str, killed: datetime, done: dict[int, Any], resumed: int) -> Round:
        trials = self.trials(name)
        keys = [found.key for trial in trials for found in trial.measurements if found.reused_from is None]
        again = [trial.id for trial in trials if trial.id in done and trial.finished_at != done[trial.id]]
        moments = [moment for trial in trials for moment in (trial.started_at, trial.finished_at) if moment]
        return Round(
            target=target,
            lost=sum(trial.state != "complete" for trial in trials),
            running=sum(trial.state in ("queued", "running") for trial in trials),
            retrained=len(keys) - len(set(keys)) + len(again),
            seconds=(min(moment for moment in moments if moment > killed) - killed).total_seconds(),
            resumed=resumed,
        )

    def log(self) -> str:
        """What the drivers said."""
        return "\n".join(file.read_text()[-3000:] for file in self.folder.glob("*.log"))


def waited_for(look: Callable[[], Any], process: subprocess.Popen[str], fault: str) -> Any:
    """What `look` gives once it gives something."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        assert process.poll() is None, f"{fault}: the driver ended with {process.returncode}"
        time.sleep(0.2)
    raise AssertionError(fault)


def child(parent: int, program: str) -> int:
    """The child of a process whose program's path ends as given."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            words = (folder / "cmdline").read_text().split("\0")
            if words[0].endswith(program) and f"\nPPid:\t{parent}\n" in (folder / "status").read_text():
                return int(folder.name)
    raise AssertionError(f"process {parent} has no child {program}")


def end(process: subprocess.Popen[str]) -> None:
    """Ends a driver that still runs, with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def report(rounds: list[Round]) -> str:
    """The table of a soak."""
    heading = (
        f"{'target':10} {'rounds':>6} {'lost':>5} {'running':>8} {'retrained':>10} {'resumed':>8} {'s to recover':>13}"
    )
    lines = [heading]
    for target in dict.fromkeys(round.target for round in rounds):
        mine = [round for round in rounds if round.target == target]
        seconds = sorted(round.seconds for round in mine)
        sums = [sum(getattr(round, what) for round in mine) for what in ("lost", "running", "retrained", "resumed")]
        figures = f"{seconds[len(seconds) // 2]:.0f} (to {seconds[-1]:.0f})"
        lines.append(f"{target:10} {len(mine):6} {sums[0]:5} {sums[1]:8} {sums[2]:10} {sums[3]:8} {figures:>13}")
    return "\n".join(lines)
