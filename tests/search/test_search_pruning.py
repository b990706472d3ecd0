"""Early stopping in a search: what is stopped, what is stored and told of it, and what a resumed search makes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import search_fakes
from database_kinds import POSTGRESQL, SQLITE
from search_fakes import fake_measurement, fake_spec
from test_search_drive import REGISTRY, Shop

from archsearch.analysis.answer import read_answer
from archsearch.errors import SpecError
from archsearch.search import drive as drive_module
from archsearch.search import resume_search, run_search
from archsearch.search.added import read_candidate
from archsearch.search.ledger import Run, TrialOrder
from archsearch.search.metrics import SearchMetrics
from archsearch.search.problem import Problem
from archsearch.search.pruning import Pruning, looks_of
from archsearch.search.sampler import Sampler
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.search import EarlyStopTable
from archsearch.search.view import View, Views
from archsearch.search.workers import _Stopper
from archsearch.storage import NewProposal, Store, TrialRecord

on_every_database = pytest.mark.parametrize("store", [SQLITE, POSTGRESQL], indirect=True)
LOOKS, TRIALS = 10, 12
RULE = {"others": 2, "grace": 0.5}


class Looking(Shop):
    """Workers that look ten times at a run, whose curve is a line, and stop where the driver says so."""

    def _work(self, source: Any, order: TrialOrder) -> None:
        for run in order.runs:
            found = fake_measurement(self.problem, REGISTRY, order.arch, run.task, run.seed)
            final, metric = found["validation"][found["metric"]], found["metric"]
            looks = [(step, final * step / LOOKS) for step in range(1, LOOKS + 1)]
            found |= {"curve": [{"step": float(step), metric: value} for step, value in looks]}
            found |= {"learning_rate": 0.01, "sweep": [{"learning_rate": 0.01, "validation": found["validation"]}]}
            told = {"trial": order.trial, "task": run.task, "seed": run.seed, "total_steps": LOOKS, "note": ""}
            for step, value in (looks[LOOKS // 2 - 1], looks[-2], looks[-1]):
                result = {**told, "step": step, "value": value, "done": False, "looks": looks[:step]}
                if step == LOOKS:
                    result |= {"measurement": json.dumps(found), "done": run == order.runs[-1]}
                stops = not result["done"] and source.stops(order.trial, result)
                source.reported(order.trial, {**result, "done": result["done"] or stops})
                if stops:
                    return


class Heard(View):
    def __init__(self) -> None:
        self.ended: dict[int, tuple[str, str]] = {}  # type: ignore[assignment]

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        self.ended[order.trial] = (state, reason)


@pytest.fixture(params=[SQLITE])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres_url") if on_server else f"sqlite:///{tmp_path / 'pruning.db'}"
    with Store.open(url) as opened:
        yield opened


def posed(early_stop: Any = RULE, **tables: Any) -> Problem:
    search = {"trials": TRIALS, "sampler": "random", "early_stop": early_stop, **tables.pop("search", {})}
    kinds = {"update": ["delta"], "norm": ["l2"]}
    tables["space"] = {"mixers": ["dense", "window", "recurrent"], "window": {"window": [8]}, "recurrent": kinds}
    recipe = {"steps": LOOKS, "learning_rates": [0.01], "seeds": 2}
    return Problem.of(SearchSpec.from_dict(fake_spec(search=search, recipe=recipe, **tables)), REGISTRY)


@pytest.fixture
def problem() -> Problem:
    return posed()


@pytest.fixture
def shop(problem: Problem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Looking:
    """Windows are cheap and good, so that all else is dominated."""
    for mixer, score in {"dense": 0.1, "window": 0.9, "recurrent": 0.2}.items():
        monkeypatch.setitem(search_fakes.SCORES, mixer, score)
    made = Looking(problem)
    monkeypatch.setattr(drive_module, "workers", made.workers)
    monkeypatch.setattr(drive_module, "train", made.train)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def trials(store: Store, **wanted: Any) -> list[TrialRecord]:
    return [store.trial(found.id) for found in store.trials(store.search("fakes").id, **wanted)]


@on_every_database
def test_a_dominated_candidate_is_pruned_with_step_reason_and_curve(
    store: Store, shop: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = told_to_the_sampler(monkeypatch)
    metrics = SearchMetrics(store, "fakes")
    heard = Heard()
    outcome = run_search(shop.problem, store=store, view=Views(heard, metrics))
    pruned = trials(store, states=["pruned"])
    assert pruned
    assert outcome.progress.pruned == len(pruned)
    assert outcome.reason.endswith(f"{len(pruned)} trials were stopped early")
    for trial in pruned:
        assert heard.ended[trial.id] == ("pruned", trial.reason)
        assert trial.kind == "search"
        assert trial.finished_at is not None
        last = trial.unfinished[-1] if trial.unfinished else None
        where = f"at step {last.step} of {LOOKS}" if last else "after"
        assert trial.reason.startswith(f"stopped {where}")
        assert {store.trial(other).state for other in named_in(trial)} == {"complete"}
        seeds = [measured.seed for measured in trial.measurements]
        assert len(seeds) < 2
        if last:
            assert (last.task, last.name, last.seed) == ("recall-task", "recall-task.accuracy", len(seeds))
            assert [point.step for point in trial.unfinished] == list(range(1, (last.step or 0) + 1))
    complete = [trial for trial in trials(store, states=["complete"]) if trial.kind == "search"]
    assert len({trial.digest for trial in [*complete, *pruned]}) == TRIALS  # it has cost training, and counts as one
    front = read_answer(store, "fakes").front
    assert not {trial.id for trial in pruned} & set(front["trial"])
    assert len(told["failed"]) >= len(pruned)
    assert not set(told["failed"]) & set(told["scored"])
    for name in ("archsearch_trials", "archsearch_trials_ended_total"):
        value = metrics.registry.get_sample_value(name, {"search": "fakes", "state": "pruned"})
        assert value == len(pruned)


def told_to_the_sampler(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The numbers of proposals, by what the sampler was told of them."""
    told: dict[str, list[int]] = {"failed": [], "scored": []}
    for name, numbers in told.items():
        whole = getattr(Sampler, name)

        def hear(
            self: Sampler, number: int, *more: Any, _whole: Any = whole, _numbers: list[int] = numbers, **named: Any
        ) -> None:
            _numbers.append(number)
            _whole(self, number, *more, **named)

        monkeypatch.setattr(Sampler, name, hear)
    return told


def named_in(trial: TrialRecord) -> set[int]:
    """The trials that a reason says to dominate."""
    return {int(text) for text in trial.reason.rpartition("by trial ")[2].split(" and ")[0].split(", ")}


@on_every_database
def test_a_resumed_search_trains_nothing_of_it_unless_it_is_asked_to(store: Store, shop: Looking) -> None:
    first = run_search(shop.problem, store=store)
    given, before = shop.given, [(trial.id, trial.state) for trial in trials(store)]
    again = resume_search(shop.problem, store=store)
    assert shop.given == given
    assert [(trial.id, trial.state) for trial in trials(store)] == before
    assert (again.progress.pruned, again.progress.trained) == (first.progress.pruned, first.progress.trained)

    pruned = {trial.id: trial.digest for trial in trials(store, states=["pruned"])}
    parts = [(part.name, part.version, "other") for part in shop.problem.parts()]
    store.set_parts(store.search("fakes").id, parts)
    with pytest.raises(SpecError, match="--retrain"):
        resume_search(shop.problem, store=store)
    resume_search(shop.problem, store=store, retrain=True)
    assert {store.trial(trial).state for trial in pruned} == {"superseded"}
    assert shop.given > given
    assert set(pruned.values()) <= {trial.digest for trial in trials(store) if trial.id > max(pruned)}


def test_who_adds_a_pruned_candidate_has_it_trained_to_the_end(store: Store, shop: Looking) -> None:
    shop.problem = posed(search={"trials": 8})
    run_search(shop.problem, store=store)
    pruned = trials(store, states=["pruned"])[0]
    arch = read_candidate(pruned.pattern, shop.problem)
    assert arch.digest == pruned.digest
    before = {trial.id for trial in trials(store)}
    wanted = NewProposal(digest=arch.digest, arch=arch.to_json(), pattern=pruned.pattern)
    store.propose(store.search("fakes").id, [wanted])
    for count in (8, 12):  # the second finds it there, and stops others by what the first has stored
        shop.problem = posed(search={"trials": count})
        resume_search(shop.problem, store=store, allowed=["search.trials"])
        (added,) = trials(store, kinds=["added"])
        assert (added.digest, added.state, len(added.measurements)) == (arch.digest, "complete", 2)
        assert store.trial(pruned.id).state == "pruned"
    later = [trial for trial in trials(store, states=["pruned"]) if trial.id not in before]
    assert named_in(later[0]) & before


def test_references_and_confirmations_are_trained_to_the_end(store: Store, shop: Looking) -> None:
    rule = {"others": 1, "noise": 0.0, "margin": 0.0, "grace": 0.0}
    shop.problem = posed(rule, search={"trials": 6})
    run_search(shop.problem, store=store)
    others = trials(store, kinds=["reference", "confirm"])
    assert {trial.kind for trial in others} == {"reference", "confirm"}
    assert {trial.state for trial in others} == {"complete"}


@pytest.mark.parametrize(
    ("given", "found"),
    [(False, None), (True, EarlyStopTable()), ({"others": 5}, EarlyStopTable(others=5)), (None, None)],
    ids=["false", "true", "a table", "none"],
)
def test_the_spec_takes_a_truth_value_or_a_table(given: Any, found: EarlyStopTable | None) -> None:
    spec = SearchSpec.from_dict(fake_spec(search={"early_stop": given}))
    assert spec.search.early_stop == found
    assert SearchSpec.from_dict(spec.to_json()) == spec


def test_a_comparison_is_trained_to_the_end() -> None:
    listed = {"pattern": "listed", "architectures": ["dense", "window"]}
    with pytest.raises(SpecError, match=r"search.early_stop goes with searches, not \[compare\]"):
        SearchSpec.from_dict(fake_spec(space=listed, compare={}, search={"trials": 2, "early_stop": True}))


def test_looks_of_a_measurement_count_over_all_rates() -> None:
    measurement = {
        "metric": "accuracy",
        "direction": "maximize",
        "learning_rate": 0.02,
        "sweep": [
            {"learning_rate": 0.01, "validation": {"accuracy": 0.3}},
            {"learning_rate": 0.02, "validation": {"accuracy": 0.8}},
            {"learning_rate": 0.04, "validation": {}},
            {"learning_rate": 0.08, "validation": {"accuracy": 0.1}},
        ],
        "curve": [{"step": 5.0, "accuracy": 0.2}, {"step": 10.0, "accuracy": 0.8}],
    }
    assert looks_of(measurement, 10) == [(10, 0.3), (15, 0.3), (20, 0.8), (40, 0.8)]


class Asked:
    """A source that stops whatever it is asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def stops(self, trial: int, result: dict[str, Any]) -> bool:
        self.asked.append(trial)
        return True


def test_a_training_that_ends_by_itself_is_not_asked_about() -> None:
    source = Asked()
    stopper = _Stopper(source, threading.Event())  # type: ignore[arg-type]
    assert not stopper("a", {"place": {}, "done": False})
    assert not stopper("a", {"trial": 7, "done": True})
    assert stopper("a", {"trial": 7, "done": False})
    assert source.asked == [7]


@pytest.mark.parametrize("confirmations", [False, True])
def test_confirmations_are_stopped_only_where_the_spec_says_so(shop: Looking, confirmations: bool) -> None:
    problem = posed({"others": 2, "confirmations": confirmations}, search={"confirm_seeds": 2})
    pruning = Pruning(problem)
    first, second = (Run("recall-task", seed) for seed in problem.confirm_seeds)
    found = {}
    patterns = ("window*3", "window*2 deltanet", "dense*3")  # the last is the dearest and the worst
    for trial, arch in enumerate((read_candidate(pattern, problem) for pattern in patterns), 1):
        order = TrialOrder(trial=trial, kind="confirm", arch=arch, pattern="", runs=(first, second))
        pruning.enter(order, problem.judge(arch))
        measured = fake_measurement(problem, REGISTRY, arch, first.task, first.seed)
        found[arch.pattern(REGISTRY)] = pruning.looked(order, first, (), measured)
    assert [pattern for pattern, stop in found.items() if stop is not None] == (["dense*3"] if confirmations else [])
