"""Rows of jobs: one for each key, whoever asks first, and what was heard of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from archsearch.storage.jobs import Jobs, NewJob


@pytest.fixture
def jobs(url: str) -> Iterator[Jobs]:
    with Jobs.open(url) as opened:
        yield opened


def job(name: str = "one", key: str = "k", address: str = "http://a:1") -> NewJob:
    plugins = [{"name": "mine", "version": "1", "digest": "d"}]
    return NewJob(name=name, key=key, search="quick", address=address, owner="me", spec={"a": 1}, plugins=plugins)


def test_the_same_key_is_the_same_job(jobs: Jobs) -> None:
    made, new = jobs.begin(job())
    assert (made.state, new, made.ended) == ("preparing", True, False)
    assert jobs.begin(job("two")) == (made, False)
    assert jobs.all() == [made]
    assert made.plugins == [{"name": "mine", "version": "1", "digest": "d"}]


def test_what_is_heard_is_noted(jobs: Jobs) -> None:
    jobs.begin(job())
    jobs.note("one", "running")
    running = jobs.named("one")
    assert running is not None
    assert (running.state, running.finished_at) == ("running", None)
    jobs.note("one", "failed", "no room")
    failed = jobs.with_key("k")
    assert failed is not None
    assert (failed.state, failed.reason, failed.ended) == ("failed", "no room", True)
    assert failed.finished_at is not None
    jobs.note("one", "failed", "no room")
    assert jobs.named("one") == failed


def test_a_released_key_is_free(jobs: Jobs) -> None:
    first, _ = jobs.begin(job())
    jobs.release(first)
    second, new = jobs.begin(job("two"))
    assert (second.name, new) == ("two", True)
    assert [found.name for found in jobs.all()] == ["two", "one"]


def test_jobs_are_listed_by_their_cluster(jobs: Jobs) -> None:
    jobs.begin(job())
    jobs.begin(job("two", "l", "http://b:1"))
    assert [found.name for found in jobs.all("http://b:1")] == ["two"]
    assert jobs.named("none") is None


def test_of_many_at_once_one_makes_the_job(url: str, jobs: Jobs) -> None:
    found: list[tuple[str, bool]] = []

    def begin(number: int) -> None:
        with Jobs.open(url) as opened:
            record, new = opened.begin(job(f"job-{number}"))
            found.append((record.name, new))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({name for name, _ in found}) == 1
    assert sum(new for _, new in found) == 1
