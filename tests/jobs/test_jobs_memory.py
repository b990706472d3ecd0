"""Two searches on one node: where one takes all its memory, Ray's monitor ends that trial, and the other goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from job_wheels import wheel
from machine_room import watched
from ray_head import Head, ray_head
from test_jobs_cluster import SPEC, jobs

from archsearch.errors import StorageError
from archsearch.storage import Store, TrialRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[2]
HOSTILE = (ROOT / "tests" / "search" / "hostile_mixers.py").read_text()
REGISTERED = """
from archsearch.hookspecs import hookimpl


@hookimpl
def register_mixers(register):
    register(Hostile())
"""
CALM = SPEC.replace("eval_every = 5", "eval_every = 1000\nstop_at = 0.0")
HUNGRY = (
    SPEC.replace('mixers = ["full", "sliding"]', 'mixers = ["hostile", "sliding"]')
    .replace("[space.full]\nrope = [1.0]", '[space.hostile]\nway = ["eats"]')
    .replace("trials = 2", 'trials = 1\nretries = 0\nreferences = ["hostile(way=eats)", "sliding(window=8)"]')
)
ROOM = 7 * 2**30
"""What two drivers, their workers and those of the questions before them take, and what is left to be eaten."""


@pytest.fixture
def head() -> Iterator[Head]:
    """One that ends workers as the image of deploy/ has it."""
    policy = dict(re.findall(r"(RAY_worker_\w+)=(\w+)", (ROOT / "deploy" / "container" / "Containerfile").read_text()))
    with ray_head(cpus=3, **policy, **watched(ROOM)) as found:
        yield found


def trials(url: str, name: str) -> list[TrialRecord]:
    with Store.open(url, read_only=True) as store:
        return store.trials(store.search(name).id)


def trained(url: str) -> TrialRecord:
    """The trial of the calm search that a worker has."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        with suppress(StorageError):  # until the job has begun its search
            for trial in trials(url, "calm"):
                if trial.state == "running" and trial.placement:
                    return trial
        time.sleep(1)
    raise AssertionError("no worker is training")


def test_a_search_that_takes_all_memory_ends_nothing_of_another_on_its_node(head: Head, tmp_path: Path) -> None:
    """Each is a job of its own, so that drivers too are processes which the monitor might end."""
    urls = {name: f"sqlite:///{tmp_path}/{name}.db" for name in ("calm", "hungry")}
    calm, hungry = (tmp_path / f"{name}.toml" for name in urls)
    calm.write_text(CALM.format(name="calm", steps=1_000_000))
    hungry.write_text(HUNGRY.format(name="hungry", steps=5))
    plugin = wheel(tmp_path, **{"mine_mixer/__init__.py": HOSTILE + REGISTERED})
    head.archsearch("submit", str(calm), "--storage", urls["calm"], "--job-id", "calm")
    before = trained(urls["calm"])
    head.archsearch("submit", str(hungry), "--storage", urls["hungry"], "--plugin", str(plugin), "--job-id", "hungry")
    said = head.archsearch("logs", "hungry", "--follow")
    assert "search complete" in said
    ended = {trial.pattern: trial for trial in trials(urls["hungry"], "hungry") if trial.kind == "reference"}
    assert ended["hostile(way=eats)"].state == "failed"
    assert ended["hostile(way=eats)"].reason.startswith(
        "out of memory: Ray ended the worker before the machine ran out"
    )
    assert ended["sliding(window=8)"].state == "complete"
    assert jobs(head)["calm"]["status"] == "RUNNING"
    (after,) = [trial for trial in trials(urls["calm"], "calm") if trial.id == before.id]
    assert (after.state, after.attempts, after.placement) == ("running", 0, before.placement)
    assert "search calm: cancelled: stopped by a signal" in head.archsearch("stop", "calm")
