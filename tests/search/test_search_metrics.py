"""Metrics of a search: what Prometheus gets, over HTTP and from the store, and at which address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from search_fakes import fake_registry, fake_spec

from archsearch.errors import ArchsearchError, SpecError
from archsearch.search import Problem, SearchSpec
from archsearch.search.ledger import TrialOrder
from archsearch.search.metrics import MetricsAddress, SearchMetrics, served
from archsearch.search.progress import Progress
from archsearch.search.view import Briefing, TrialProgress, Views
from archsearch.storage import NewTrial, Store

STATES = ("complete", "complete", "failed", "queued", "infeasible")


@pytest.fixture
def store(tmp_path: Any) -> Iterator[Store]:
    problem = Problem.of(SearchSpec.from_dict(fake_spec()), fake_registry())
    with Store.open(f"sqlite:///{tmp_path}/searches.db") as store:
        search = store.create_search("toy", problem.spec.to_json(), [])
        for number, state in enumerate(STATES):
            new = NewTrial(
                kind="search",
                state=state,
                arch={},
                digest=f"d{number}",
                pattern="dense",
                params={},
                seeds=[0],
                costs={},
                violations={},
            )
            store.add_trial(search, new)
        yield store


def order(trial: int) -> TrialOrder:
    return TrialOrder(trial=trial, kind="search", arch=cast("Any", None), pattern="dense", runs=())


def step(number: int) -> TrialProgress:
    return TrialProgress(task="recall", seed=0, step=number, total_steps=100, value=0.5)


def scrape(metrics: SearchMetrics) -> dict[tuple[str, str], float]:
    """What is served, by the metric's name and its other label."""
    with served(metrics, MetricsAddress(host="127.0.0.1", first=free_port(), last=65535)) as port:
        text = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["search"] == "toy"
            found[sample.name, sample.labels.get("state", "")] = sample.value
    return found


def test_trials_by_state_the_queue_and_the_heartbeat_come_from_the_store(store: Store) -> None:
    found = scrape(SearchMetrics(store, "toy"))
    counts = {state: found["archsearch_trials", state] for state in (*STATES, "running", "preempted")}
    assert counts == {"complete": 2, "failed": 1, "queued": 1, "infeasible": 1, "running": 0, "preempted": 0}
    assert found["archsearch_search_state", "running"] == 1
    assert found["archsearch_search_state", "interrupted"] == 0
    assert found["archsearch_store_up", ""] == 1
    assert 0 <= found["archsearch_heartbeat_age_seconds", ""] < 3600
    before = found["archsearch_heartbeats_total", ""]
    store.set_search_state(store.search("toy").id, "running")
    assert scrape(SearchMetrics(store, "toy"))["archsearch_heartbeats_total", ""] == before + 1


def test_rates_come_from_what_the_driver_hears(store: Store) -> None:
    metrics = SearchMetrics(store, "toy")
    view = Views(metrics)
    view.begun(cast("Briefing", SimpleNamespace(planned=9, concurrency=3)))
    for trial in (1, 2):
        view.trial_started(order(trial))
    for number in (10, 40, 40):
        view.trial_progressed(order(1), step(number))
    view.trial_ended(order(1), "complete", "")
    view.advanced(Progress(planned=10), [cast("Any", None)] * 4)
    found = scrape(metrics)
    assert found["archsearch_trials_ended_total", "complete"] == 1
    assert found["archsearch_steps_total", ""] == 40
    assert found["archsearch_trials_running", ""] == 1
    assert found["archsearch_trials_planned", ""] == 10
    assert found["archsearch_concurrency", ""] == 3
    assert found["archsearch_front_size", ""] == 4
    assert found["archsearch_trial_seconds_count", ""] == 1
    view.ended("complete", "")
    assert scrape(metrics)["archsearch_trials_running", ""] == 0


def test_a_database_that_does_not_answer_is_told_and_ends_nothing(store: Store) -> None:
    found = scrape(SearchMetrics(store, "toy"))
    assert found["archsearch_store_up", ""] == 1
    found = {name: value for (name, _), value in scrape_unknown(store).items()}
    assert found["archsearch_store_up"] == 0
    assert "archsearch_trials" not in found


def scrape_unknown(store: Store) -> dict[tuple[str, str], float]:
    metrics = SearchMetrics(store, "toy")
    with store._engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trial RENAME TO lost")
    return scrape(metrics)


@pytest.mark.parametrize(
    ("text", "host", "first", "last"),
    [
        ("9464", "127.0.0.1", 9464, 9464),
        ("9464-9473", "127.0.0.1", 9464, 9473),
        ("0.0.0.0:9464-9473", "0.0.0.0", 9464, 9473),
        ("[::1]:80", "::1", 80, 80),
        ("head:9464", "head", 9464, 9464),
    ],
)
def test_an_address_is_read(text: str, host: str, first: int, last: int) -> None:
    assert MetricsAddress.read(text) == MetricsAddress(host=host, first=first, last=last)


@pytest.mark.parametrize("text", ["", "http", "0", "70000", "9473-9464", "a:b", "1.2.3.4:", "::1:80", "9464-"])
def test_what_is_no_address_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(SpecError, match=r"write a port \(9464\), HOST:PORT"):
        MetricsAddress.read(text)


def test_a_taken_port_is_passed_over_in_a_range_and_refused_alone(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if port > 65000:
            pytest.skip("the port that is free is among the last ones")
        with served(SearchMetrics(store, "toy"), MetricsAddress(host="127.0.0.1", first=port, last=port + 400)) as got:
            assert got > port
        alone = served(SearchMetrics(store, "toy"), MetricsAddress(host="127.0.0.1", first=port, last=port))
        with pytest.raises(ArchsearchError, match=rf"127\.0\.0\.1:{port} \(.*in use\): name another --metrics"):
            alone.__enter__()
