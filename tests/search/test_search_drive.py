"""The drive with a worker that measures at once: an error keeps its kind, and what only shows ends nothing."""

from __future__ import annotations

import errno
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from grids import grid
from search_fakes import fake_measurement, fake_registry, fake_spec

from archsearch.errors import ClusterError, NothingFeasibleError, PluginError, SpecError, StorageError, TakenOverError
from archsearch.search import drive as drive_module
from archsearch.search import resume_search, run_search
from archsearch.search.failures import Failure, Place
from archsearch.search.ledger import TrialOrder
from archsearch.search.problem import Problem
from archsearch.search.ray_session import JoiningStopped, Workers
from archsearch.search.spec import SearchSpec
from archsearch.search.time_limit import TimeLimit
from archsearch.search.view import View
from archsearch.storage import Driver, Lease, Store

REGISTRY = fake_registry()


class Shop:
    """Stands in for Ray: what an order gives is decided by ``outcome``, "measured" unless it says otherwise."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.outcome: Callable[[TrialOrder], str | Failure | BaseException] = lambda order: "measured"
        self.device = "cpu"
        self.given = 0

    @contextmanager
    def workers(self, concurrency: int, address: str | None, **how: Any) -> Iterator[Workers]:
        yield Workers(local=True, device=self.device)

    def train(self, source: Any, stop: threading.Event, **how: Any) -> None:
        while not stop.is_set():
            order = source.next()
            if order is None:
                if source.done or stop.is_set():
                    break
                continue
            self.given += 1
            source.assignment(order)
            source.placed(order.trial, Place(node="here", pid=7))
            self._work(source, order)
        if stop.is_set():
            source.stopped()

    def _work(self, source: Any, order: TrialOrder) -> None:
        outcome = self.outcome(order)
        if isinstance(outcome, BaseException):
            reason = f"{type(outcome).__name__}: {outcome}"
            outcome = Failure(kind="own", reason=reason, error=outcome)
        if isinstance(outcome, Failure):
            source.failed(order.trial, outcome)
            return
        for index, run in enumerate(order.runs):
            found = fake_measurement(
                self.problem, REGISTRY, order.arch, run.task, run.seed, diverged=outcome == "diverged"
            )
            done = index == len(order.runs) - 1 or outcome == "diverged"
            source.reported(
                order.trial,
                {
                    "task": run.task,
                    "seed": run.seed,
                    "step": 4,
                    "total_steps": 4,
                    "value": 0.5,
                    "done": done,
                    "note": "",
                    "measurement": json.dumps(found),
                },
            )
            if done:
                return


def posed(**tables: Any) -> Problem:
    return Problem.of(SearchSpec.from_dict(fake_spec(**tables)), REGISTRY)


@pytest.fixture
def problem() -> Problem:
    return posed()


@pytest.fixture
def shop(problem: Problem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    made = Shop(problem)
    monkeypatch.setattr(drive_module, "workers", made.workers)
    monkeypatch.setattr(drive_module, "train", made.train)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'drive.db'}") as opened:
        yield opened


def states(store: Store) -> set[str]:
    return {trial.state for trial in store.trials(store.search("fakes").id)}


class FailingView(View):
    """Fails at one of its methods, once; counts what it is told after that."""

    def __init__(self, method: str, error: BaseException) -> None:
        self.after, self._method, self._error, self._failed = 0, method, error, False
        for name in ("begun", "trial_started", "trial_progressed", "trial_ended", "advanced", "noted", "ended"):
            setattr(self, name, self._told(name))

    def _told(self, name: str) -> Callable[..., None]:
        def told(*what: Any) -> None:
            self.after += self._failed
            if name == self._method:
                self._failed = True
                raise self._error

        return told


VIEW_ERRORS: list[BaseException] = [
    OSError(errno.ENOSPC, "No space left on device"),
    BrokenPipeError(),
    UnicodeEncodeError("ascii", "→", 0, 1, "no"),
    ValueError("I/O operation on closed file"),
    SystemExit(1),
    AssertionError("a defect of the view"),
]


VIEW_METHODS = ("begun", "trial_started", "trial_progressed", "trial_ended", "advanced", "ended")
VIEW_FAULTS = {f"{method}-{type(error).__name__}": (method, error) for method in VIEW_METHODS for error in VIEW_ERRORS}
ONE_OF_EACH = [f"{method}-OSError" for method in VIEW_METHODS] + [
    f"advanced-{type(one).__name__}" for one in VIEW_ERRORS
]


@pytest.mark.parametrize("fault", grid(VIEW_FAULTS, ONE_OF_EACH))
def test_a_view_that_fails_ends_nothing(
    problem: Problem, shop: Shop, store: Store, caplog: pytest.LogCaptureFixture, fault: tuple[str, BaseException]
) -> None:
    view = FailingView(*fault)
    outcome = run_search(problem, store=store, view=view)
    assert outcome.state == store.search("fakes").state == "complete"
    assert states(store) <= {"complete", "infeasible"}
    assert view.after == 0
    assert [record.message.count("goes on unseen") for record in caplog.records] == [1]


def test_what_a_view_is_told_is_stored_already(problem: Problem, shop: Shop, store: Store) -> None:
    class Watching(View):
        def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
            assert store.trial(order.trial).state == state
            seen.append(order.trial)

        def ended(self, state: str, reason: str) -> None:
            assert store.search("fakes").state == state
            seen.append(-1)

    seen: list[int] = []
    run_search(problem, store=store, view=Watching())
    assert len(seen) == shop.given + 1


@pytest.mark.parametrize("method", ["set_trial_state", "add_trial", "add_measurement", "find_measurement"])
def test_a_database_that_fails_is_told_as_one(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    calls: list[str] = []
    real = getattr(Lease, method)

    def fails_later(*what: Any, **how: Any) -> Any:
        calls.append(method)
        if len(calls) == 5:
            raise StorageError("sqlite:///x.db: another process holds its lock")
        return real(*what, **how)

    monkeypatch.setattr(Lease, method, fails_later)
    with pytest.raises(StorageError, match="holds its lock"):
        run_search(problem, store=store)
    assert store.search("fakes").state == "failed"
    assert "holds its lock" in store.search("fakes").reason


def test_a_database_that_is_gone_for_good_does_not_hide_why(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*what: Any, **how: Any) -> Any:
        calls.append(1)
        raise StorageError("the first of its errors" if len(calls) == 1 else "and all the others")

    calls: list[int] = []
    for method in ("set_trial_state", "set_search_state", "add_measurement"):
        monkeypatch.setattr(Lease, method, gone)
    with pytest.raises(StorageError, match="the first of its errors"):
        run_search(problem, store=store)
    assert "could not be stored" in caplog.text


ANOTHER = Driver(host="far", boot_id="another", pid_namespace="pid:[1]", pid=77, started=5)


def take_over(store: Store) -> None:
    """Another driver claims the search that this process drives, as after a pause of this one."""
    with store._writing() as session:
        row = store._search_row(session, store.search("fakes").id, lock=True)
        row.driver, row.fence = ANOTHER.to_json(), row.fence + 1


def told_of_the_other(problem: Problem, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The drive ends with a sentence, and of the search all is as the other driver has it."""
    with pytest.raises(
        TakenOverError, match=r'"fakes" was taken over by another driver \(process 77 on far\)'
    ) as caught:
        run_search(problem, store=store)
    assert caught.value.exit_code == 4
    record = store.search("fakes")
    assert (record.state, record.reason, record.driver, record.fence) == ("running", "", ANOTHER, 2)
    assert "running" in states(store)
    assert "preempted" not in states(store)
    assert caplog.text == ""


@pytest.mark.parametrize("outcome", ["measured", "diverged", PluginError("no")], ids=["measured", "diverged", "failed"])
def test_a_driver_whose_search_was_taken_over_ends_and_leaves_it_alone(
    problem: Problem, shop: Shop, store: Store, caplog: pytest.LogCaptureFixture, outcome: str | BaseException
) -> None:
    def paused(order: TrialOrder) -> str | BaseException:
        if shop.given == 3:
            take_over(store)
        return outcome if shop.given == 3 else "measured"

    shop.outcome = paused
    told_of_the_other(problem, store, caplog)
    assert shop.given == 3


def test_a_driver_that_waits_hears_by_its_heartbeat_that_it_was_replaced(
    problem: Problem, shop: Shop, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsearch.search.presence.HEARTBEAT_SECONDS", 0.05)

    def hang(source: Any, stop: threading.Event, **how: Any) -> None:
        source.next()
        take_over(store)
        assert stop.wait(240)

    monkeypatch.setattr(drive_module, "train", hang)
    told_of_the_other(problem, store, caplog)


def test_stopping_a_driver_that_was_replaced_cancels_nothing(
    problem: Problem, shop: Shop, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def paused(order: TrialOrder) -> str:
        if shop.given == 3:
            take_over(store)
            signal.raise_signal(signal.SIGINT)
        return "measured"

    shop.outcome = paused
    told_of_the_other(problem, store, caplog)


def test_workers_that_differ_end_the_search_at_once(problem: Problem, shop: Shop, store: Store) -> None:
    shop.outcome = lambda order: ClusterError("a worker's plugins differ from the driver's: driver has a; worker has b")
    with pytest.raises(ClusterError, match="driver has a; worker has b"):
        run_search(problem, store=store)
    assert shop.given == 1
    assert store.search("fakes").state == "failed"
    assert not states(store) & {"queued", "running"}


def test_a_search_in_which_every_trial_failed_has_failed(problem: Problem, shop: Shop, store: Store) -> None:
    shop.outcome = lambda order: PluginError('mixer "dense", layer 0: forward raised RuntimeError: no')
    outcome = run_search(problem, store=store)
    assert outcome.state == store.search("fakes").state == "failed"
    assert 'the first because PluginError: mixer "dense", layer 0' in outcome.reason
    assert outcome.progress.failed == shop.given
    assert states(store) <= {"failed", "infeasible"}


def test_references_from_the_store_do_not_make_a_failed_search_complete(shop: Shop, store: Store) -> None:
    def searching(name: str, mixer: str) -> Problem:
        tables = {"space": {"mixers": [mixer]}, "search": {"trials": 2, "references": ["dense"], "confirm_seeds": 0}}
        return posed(name=name, **tables)

    run_search(searching("first", "dense"), store=store)
    shop.outcome = lambda order: PluginError("no")
    outcome = run_search(searching("second", "recurrent"), store=store)
    assert [trial.kind for trial in store.trials(store.search("second").id, states=["complete"])] == ["reference"]
    assert (outcome.state, outcome.progress.failed) == ("failed", 2)


def test_a_search_in_which_everything_diverged_has_failed(problem: Problem, shop: Shop, store: Store) -> None:
    shop.outcome = lambda order: "diverged"
    outcome = run_search(problem, store=store)
    assert (outcome.state, outcome.progress.failed) == ("failed", 0)
    assert f"{outcome.progress.diverged} diverged" in outcome.reason


def test_some_failures_are_counted_in_the_reason(problem: Problem, shop: Shop, store: Store) -> None:
    shop.outcome = lambda order: PluginError("no") if order.kind == "reference" else "measured"
    outcome = run_search(problem, store=store)
    assert (outcome.state, outcome.reason) == ("complete", "of the trials 3 failed")


def test_resuming_a_failed_search_that_never_succeeded_fails_again(problem: Problem, shop: Shop, store: Store) -> None:
    shop.outcome = lambda order: PluginError("no")
    run_search(problem, store=store)
    again = resume_search(problem, store=store)
    assert again.state == "failed"


def test_workers_beyond_memory_are_refused_before_anything_is_stored(
    shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("archsearch.search.ray_session.WORKER_BYTES", 2**45)
    vast = posed(search={"concurrency": 4000})
    with pytest.raises(SpecError, match=r"needs at least .* of memory"):
        run_search(vast, store=store)
    assert not store.searches()


def test_growth_that_is_refused_changes_nothing_of_a_search(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run_search(problem, store=store)
    before = store.search("fakes")
    monkeypatch.setattr("archsearch.search.ray_session.WORKER_BYTES", 2**45)
    with pytest.raises(SpecError, match=r"needs at least .* of memory"):
        resume_search(problem, store=store)
    assert store.search("fakes") == before
    assert before.state == "complete"


def test_a_gpu_that_is_wanted_and_not_there_is_told_at_once(shop: Shop, store: Store) -> None:
    problem = posed(recipe={"device": "cuda"})
    with pytest.raises(SpecError, match="the workers have no GPU"):
        run_search(problem, store=store)
    assert not shop.given


def test_a_signal_while_a_cluster_is_waited_for_cancels_the_search(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stopped(*what: Any, **how: Any) -> Iterator[Workers]:
        raise JoiningStopped
        yield

    monkeypatch.setattr(drive_module, "workers", stopped)
    outcome = run_search(problem, store=store)
    assert outcome.state == store.search("fakes").state == "cancelled"
    assert "archsearch resume fakes" in outcome.reason


def test_a_time_limit_ends_a_search_in_order(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(source: Any, stop: threading.Event, **how: Any) -> None:
        assert source.next() is not None
        assert stop.wait(120), "the time limit stopped nothing"
        source.stopped()

    monkeypatch.setattr(drive_module, "train", train)
    outcome = run_search(problem, store=store, limit=TimeLimit(hours=2 / 3600))
    search = store.search("fakes")
    assert (outcome.state, outcome.time_up, search.state) == ("cancelled", True, "cancelled")
    assert "its time of 0.000555556 h was up: archsearch resume fakes goes on" in search.reason
    ended = {(trial.state, trial.reason) for trial in store.trials(search.id) if trial.state != "infeasible"}
    assert ("preempted", search.reason) in ended
    assert not {"running", "queued"} & states(store)
    monkeypatch.setattr(drive_module, "train", shop.train)
    resumed = resume_search(problem, store=store, limit=TimeLimit(hours=24))
    assert (resumed.state, resumed.time_up) == ("complete", False)


def test_a_search_whose_time_is_up_at_once_starts_no_workers(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveyed, up = drive_module.survey, threading.Event()

    def survey(problem: Problem) -> Any:
        assert up.wait(120)
        return surveyed(problem)

    def note(drive: Any, why: str) -> None:
        drive._time_up = why
        drive._stop.set()
        up.set()

    monkeypatch.setattr(drive_module, "survey", survey)
    monkeypatch.setattr(drive_module.Drive, "_note_time", note)
    assert run_search(problem, store=store, limit=TimeLimit(hours=1e-9)).time_up
    assert not shop.given


@pytest.mark.parametrize(
    "error", [ClusterError("nothing listens at there:1"), JoiningStopped()], ids=["away", "Ctrl-C"]
)
def test_a_search_that_cannot_be_taken_up_again_stays_what_it_was(
    problem: Problem, shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run_search(problem, store=store)
    before = store.search("fakes")

    @contextmanager
    def unreachable(*what: Any, **how: Any) -> Iterator[Workers]:
        raise error
        yield

    monkeypatch.setattr(drive_module, "workers", unreachable)
    with suppress(ClusterError):
        assert resume_search(problem, store=store).state == "cancelled"
    after = store.search("fakes")
    assert (after.state, after.reason) == (before.state, before.reason) == ("complete", "")


def test_nothing_feasible_is_told_before_any_worker_is_started(
    shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive_module, "workers", None)
    problem = posed(budget={"state_bytes": 1})
    with pytest.raises(NothingFeasibleError):
        run_search(problem, store=store)
    assert store.search("fakes").state == "infeasible"


def test_notes_of_workers_are_shown_once(problem: Problem, shop: Shop, store: Store) -> None:
    class Noting(View):
        def noted(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    real = shop.train

    def train(source: Any, stop: threading.Event, **how: Any) -> None:
        reported = source.reported
        source.reported = lambda trial, result: reported(trial, {**result, "note": "x differs"})
        real(source, stop, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive_module, "train", train)
        run_search(problem, store=store, view=Noting())
    assert notes == ["x differs"]


def test_a_search_grows_by_what_is_stated(problem: Problem, shop: Shop, store: Store) -> None:
    run_search(problem, store=store)
    first = shop.given
    grown = posed(search={"trials": 9})
    with pytest.raises(SpecError, match=r"search\.trials was 6 and is 9: add --grow"):
        resume_search(grown, store=store)
    outcome = resume_search(grown, store=store, allowed=["search.trials"])
    assert outcome.progress.trained == 9
    assert shop.given >= first + 3
    assert store.search("fakes").spec["search"]["trials"] == 9


def test_a_wider_budget_lets_refused_candidates_be_trained(shop: Shop, store: Store) -> None:
    space = {"mixers": ["dense", "window"], "dense": {"rope": 1.0}, "window": {"window": 8}}

    def with_budget(limit: str) -> Problem:
        tables = {"budget": {"state_bytes": limit}, "search": {"trials": 8, "confirm_seeds": 0, "references": False}}
        return posed(space=space, **tables)

    narrow = run_search(with_budget("100 KiB"), store=store)
    assert narrow.progress.refused
    wide = resume_search(with_budget("10 MiB"), store=store, allowed=["budget"])
    assert wide.progress.trained == 8
    trained = {trial.digest for trial in store.trials(store.search("fakes").id, states=["complete"])}
    assert len(trained) == 8
