"""Drivers: whether a process still runs, told from its pid, its start and the machine's boot."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archsearch.storage import Driver, Store, driver
from archsearch.storage.records import SearchRecord

on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="without /proc nothing is known of a pid")
LONG_AGO, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until its input is closed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as found:
        yield found


def _driver_of(pid: int) -> Driver:
    found = driver._process(pid)
    assert found is not None
    return replace(Driver.here(), pid=pid, started=found[1])


@on_linux
def test_this_process_is_alive() -> None:
    here = Driver.here()
    assert here.alive() is True
    assert here.pid == os.getpid()
    assert str(here) == f"process {os.getpid()} on {here.host}"
    assert Driver.from_json(here.to_json()) == here


@on_linux
def test_a_thread_tells_of_its_process() -> None:
    found: list[Driver] = []
    thread = threading.Thread(target=lambda: found.append(Driver.here()))
    thread.start()
    thread.join()
    assert found == [Driver.here()]


@on_linux
def test_a_process_lives_until_it_ends_and_is_dead_as_a_zombie() -> None:
    with process() as child:
        described = _driver_of(child.pid)
        assert described.alive() is True
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet asked for
        assert driver._process(child.pid) == ("Z", described.started)
        assert described.alive() is False
        child.wait()
        assert described.alive() is False


@on_linux
def test_another_process_under_the_same_pid_is_another_driver() -> None:
    assert replace(Driver.here(), started=Driver.here().started - 1).alive() is False


@pytest.mark.parametrize(
    "changes",
    [{"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"boot_id": ""}, {"started": 0}, {"pid": 0}, {"pid": 2**40}],
    ids=lambda changes: "-".join(changes),
)
def test_what_cannot_be_told_from_here(changes: dict[str, Any]) -> None:
    assert replace(Driver.here(), **changes).alive() is None


def test_without_proc_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(driver, "_PROC", tmp_path)
    here = Driver.here()
    assert (here.boot_id, here.pid_namespace, here.started) == ("", "", 0)
    assert here.alive() is None


@on_linux
def test_a_process_that_is_hidden_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    described = replace(Driver.here(), pid=1)
    monkeypatch.setattr(driver, "_process", lambda pid: None)
    assert described.alive() is None


@on_linux
@pytest.mark.parametrize("name", ["a b", "(x) S 1 (", ") Z 0 "])
def test_a_name_with_parentheses_hides_no_state(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fields = ["S", *("0" for _ in range(18)), "4711", "0"]
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "stat").write_text(f"12 ({name}) {' '.join(fields)}\n")
    monkeypatch.setattr(driver, "_PROC", tmp_path)
    assert driver._process(12) == ("S", 4711)


@pytest.mark.parametrize(
    "changes",
    [{"pid": "1"}, {"pid": True}, {"pid": -1}, {"started": 1.5}, {"host": None}, {"more": 1}],
    ids=lambda changes: "-".join(map(str, changes.items())),
)
def test_what_is_no_driver_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a driver"):
        Driver.from_json({**Driver.here().to_json(), **changes})


def _running(described: Driver | None, beat: datetime) -> SearchRecord:
    return SearchRecord(
        id=1,
        name="s",
        state="running",
        reason="",
        spec={},
        objectives=(),
        created_at=beat,
        heartbeat_at=beat,
        finished_at=None,
        driver=described,
        beats=0,
        read_at=NOW,
    )


@on_linux
def test_a_search_is_interrupted_as_soon_as_its_driver_is_dead() -> None:
    here = Driver.here()
    dead, elsewhere = replace(here, started=here.started - 1), replace(here, boot_id="another")
    assert _running(dead, NOW).state_now() == "interrupted"
    assert _running(dead, NOW + timedelta(hours=1)).state_now() == "interrupted"
    assert _running(here, LONG_AGO).state_now() == "running"
    assert _running(elsewhere, NOW).state_now() == "running"
    assert _running(elsewhere, LONG_AGO).state_now() == "interrupted"
    assert replace(_running(dead, NOW), state="complete").state_now() == "complete"


def test_a_search_keeps_its_driver(store: Store) -> None:
    here = Driver.here()
    store.create_search("driven", {}, [], driver=here)
    store.create_search("of nobody", {}, [])
    assert [record.driver for record in store.searches()] == [here, None]
    assert [record.beats for record in store.searches()] == [0, 0]
