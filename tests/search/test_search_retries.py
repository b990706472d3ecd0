"""Trials whose workers are lost: tried again after a while, then preempted or failed, and never out of the budget."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from database_kinds import POSTGRESQL, SQLITE
from search_fakes import fake_measurement, fake_registry, fake_spec

from archsearch.errors import ClusterError
from archsearch.search import drive as drive_module
from archsearch.search import orders as orders_module
from archsearch.search import resume_search, run_search
from archsearch.search.failures import Failure, Place
from archsearch.search.ledger import TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.problem import Problem
from archsearch.search.ray_session import Workers
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import survey
from archsearch.storage import Store

REGISTRY = fake_registry()
LOST = Failure(kind="lost", reason="the machine was lost on gpu7")
CRASHED = Failure(kind="crashed", reason="the worker crashed: segmentation fault (SIGSEGV) on gpu7")


@pytest.fixture(params=[SQLITE])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres_url") if on_server else f"sqlite:///{tmp_path / 'retries.db'}"
    with Store.open(url) as opened:
        yield opened


class Timed:
    """A campaign whose clock is turned by hand."""

    def __init__(self, store: Store, **tables: Any) -> None:
        spec = SearchSpec.from_dict(fake_spec(**tables))
        self.problem, self.store, self.now = Problem.of(spec, REGISTRY), store, 0.0
        self.search = store.create_search(spec.name, spec.to_json(), [])
        self.campaign = Campaign(self.problem, store=store, search_id=self.search, clock=lambda: self.now)
        self.campaign.prepare(survey(self.problem))

    def next(self) -> TrialOrder:
        order = self.campaign.next()
        assert isinstance(order, TrialOrder)
        return order

    def measure(self, order: TrialOrder, runs: int) -> None:
        for run in order.runs[:runs]:
            found = fake_measurement(self.problem, REGISTRY, order.arch, run.task, run.seed)
            self.campaign.measured(order, run, found)


@pytest.mark.parametrize("store", [SQLITE, POSTGRESQL], indirect=True)
def test_a_trial_whose_worker_was_lost_is_tried_again_later_with_what_is_left_of_it(store: Store) -> None:
    timed = Timed(store, tasks=[{"name": "recall-task"}, {"name": "bits"}])
    order = timed.next()
    timed.campaign.placed(order, Place(node="gpu7", device="H200", gpus=["0"], pid=7).to_json())
    timed.measure(order, 1)
    assert timed.campaign.again(order, LOST.reason) == 2.0
    record = store.trial(order.trial)
    assert (record.state, record.reason, record.attempts) == ("preempted", LOST.reason, 1)
    assert record.placement == {"node": "gpu7", "device": "H200", "gpus": ["0"], "pid": 7}
    assert timed.next().trial != order.trial
    timed.now = 3.0
    assert timed.campaign.next() == "wait"  # one at a time
    timed.measure(timed.campaign.running[0], 9)
    timed.campaign.finished(timed.campaign.running[0])
    again = timed.next()
    assert (again.trial, again.runs) == (order.trial, order.runs[1:])
    assert store.trial(order.trial).state == "running"
    assert timed.campaign.again(again, LOST.reason) is None
    timed.campaign.lost(again)
    assert store.trial(order.trial).attempts == 2
    assert (timed.campaign.progress.lost, timed.campaign.progress.retried) == (1, 1)


def test_waiting_for_a_retry_is_no_end_of_the_search(store: Store) -> None:
    timed = Timed(store, search={"trials": 1, "references": False, "confirm_seeds": 0, "retries": 9})
    for lost in range(1, 8):
        order = timed.next()
        assert timed.campaign.again(order, LOST.reason) == min(60.0, 2.0**lost)
        assert timed.campaign.next() == "wait"
        assert timed.campaign.busy
        timed.now += 60.0
    timed.measure(timed.next(), 9)
    timed.campaign.finished(timed.campaign.running[0])
    assert timed.campaign.next() == "done"
    assert timed.campaign.progress.trained == 1


def test_what_waits_for_a_retry_is_preempted_when_the_search_is_stopped(store: Store) -> None:
    timed = Timed(store)
    order = timed.next()
    timed.campaign.again(order, LOST.reason)
    timed.campaign.stopped("stopped by a signal")
    assert store.trial(order.trial).reason == "stopped by a signal"
    assert not timed.campaign.busy


class Faulty:
    """Stands in for Ray: ``fate`` says what becomes of an order, None where it is measured."""

    def __init__(self, problem: Problem, fate: Callable[[TrialOrder], Failure | None]) -> None:
        self.problem, self.fate, self.given = problem, fate, list[int]()

    @contextmanager
    def workers(self, concurrency: int, address: str | None, **how: Any) -> Iterator[Workers]:
        yield Workers(local=True, device="cpu")

    def train(self, source: Any, stop: threading.Event, **how: Any) -> None:
        while not stop.is_set() and not source.done:
            order = source.next()
            if order is None:
                continue
            self.given.append(order.trial)
            source.placed(order.trial, Place(node="gpu7", pid=7))
            failure = self.fate(order)
            if failure is None:
                self._measure(source, order)
            else:
                source.failed(order.trial, failure)

    def _measure(self, source: Any, order: TrialOrder) -> None:
        import json

        for run in order.runs:
            found = fake_measurement(self.problem, REGISTRY, order.arch, run.task, run.seed)
            told = {"task": run.task, "seed": run.seed, "step": 4, "total_steps": 4, "value": 0.5, "note": ""}
            source.reported(order.trial, told | {"done": run == order.runs[-1], "measurement": json.dumps(found)})


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Faulty]:
    def made(fate: Callable[[TrialOrder], Failure | None], **tables: Any) -> Faulty:
        shop = Faulty(Problem.of(SearchSpec.from_dict(fake_spec(**tables)), REGISTRY), fate)
        monkeypatch.setattr(drive_module, "workers", shop.workers)
        monkeypatch.setattr(drive_module, "train", shop.train)
        monkeypatch.setattr(orders_module, "BACKOFF_SECONDS", 0.0)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return shop

    return made


def test_a_worker_lost_once_costs_no_trial(faulty: Callable[..., Faulty], store: Store) -> None:
    seen: set[int] = set()

    def once(order: TrialOrder) -> Failure | None:
        first = order.trial not in seen
        seen.add(order.trial)
        return LOST if first else None

    shop = faulty(once)
    outcome = run_search(shop.problem, store=store)
    assert (outcome.state, outcome.reason) == ("complete", "")
    assert (outcome.progress.trained, outcome.progress.retried) == (6, len(seen))
    trials = store.trials(store.search("fakes").id)
    assert {trial.state for trial in trials} <= {"complete", "infeasible"}
    assert {trial.attempts for trial in trials if trial.id in seen} == {1}


def test_a_trial_that_keeps_losing_its_worker_is_left_for_resume(faulty: Callable[..., Faulty], store: Store) -> None:
    shop = faulty(lambda order: LOST if order.kind == "reference" else None)
    outcome = run_search(shop.problem, store=store)
    assert outcome.state == store.search("fakes").state == "interrupted"
    assert "of the trials 3 lost their workers, the first because the machine was lost on gpu7" in outcome.reason
    assert outcome.reason.endswith("archsearch resume fakes tries those again that were lost")
    lost = store.trials(store.search("fakes").id, states=["preempted"])
    assert {trial.kind for trial in lost} == {"reference"}
    shop.fate = lambda order: None
    after = resume_search(shop.problem, store=store)
    assert (after.state, after.progress.lost, after.progress.trained) == ("complete", 0, 6)
    assert not store.trials(store.search("fakes").id, states=["preempted"])


def test_a_mixer_that_crashes_its_worker_twice_has_failed_itself(faulty: Callable[..., Faulty], store: Store) -> None:
    shop = faulty(lambda order: CRASHED if order.kind == "reference" else None)
    outcome = run_search(shop.problem, store=store)
    assert (outcome.state, outcome.reason) == ("complete", "of the trials 3 failed")
    failed = store.trials(store.search("fakes").id, states=["failed"])
    assert {(trial.reason, trial.attempts) for trial in failed} == {(CRASHED.reason, 2)}


def test_a_cluster_that_only_loses_workers_ends_the_search(faulty: Callable[..., Faulty], store: Store) -> None:
    shop = faulty(lambda order: LOST, search={"trials": 30})
    with pytest.raises(ClusterError, match=r"5 trials in a row have lost their workers, the last because the machine"):
        run_search(shop.problem, store=store)
    assert store.search("fakes").state == "failed"
    assert len(shop.given) == 10
    states = {trial.state for trial in store.trials(store.search("fakes").id)}
    assert states <= {"preempted", "infeasible"}


def test_without_retries_the_first_loss_counts(faulty: Callable[..., Faulty], store: Store) -> None:
    shop = faulty(lambda order: LOST if order.kind == "reference" else None, search={"retries": 0})
    assert run_search(shop.problem, store=store).state == "interrupted"
    assert len(shop.given) == len(set(shop.given))


def test_a_cluster_that_is_gone_leaves_the_search_in_order_whatever_ray_does(
    faulty: Callable[..., Faulty], store: Store
) -> None:
    """The store is put in order by the thread that noticed: Ray may end the process before it leaves."""
    shop = faulty(lambda order: None)
    seen: list[tuple[str, set[str]]] = []

    def train(source: Any, stop: threading.Event, **how: Any) -> None:
        source.next()
        noticed = threading.Thread(target=source.gone, args=("its raylet has died",))
        noticed.start()
        noticed.join()
        record = store.search("fakes")
        seen.append((record.state, {trial.state for trial in store.trials(record.id)}))
        assert stop.is_set()

    shop_train, drive_module.train = drive_module.train, train  # the fixture puts the real one back
    with pytest.raises(ClusterError, match="gone: its raylet has died: archsearch resume fakes goes on"):
        run_search(shop.problem, store=store)
    assert seen == [("failed", {"preempted"})]
    drive_module.train = shop_train
    assert resume_search(shop.problem, store=store).state == "complete"
