"""Speed of learning as an objective: what is timed by full attention waits for it, and says so where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from search_fakes import SCORES, Dense, fake_measurement, fake_registry, fake_spec

from archsearch.errors import SpecError
from archsearch.search.ledger import WAITS, TrialOrder
from archsearch.search.plan import Campaign
from archsearch.search.problem import Problem
from archsearch.search.spec import MAX_SEED, SearchSpec
from archsearch.search.survey import survey
from archsearch.storage import Store, TrialRecord

HALF = "recall-task.tokens_to_half"


class Full(Dense):
    name = "full"


REGISTRY = fake_registry()
REGISTRY.add(Full())

STEPS, ROWS, LENGTH = 100, 4, 32
BUDGET = float(STEPS * ROWS * LENGTH)
CURVES: Mapping[str, Sequence[float]] = {
    "full": (0.2, 0.4, 0.6, 0.8, 1.0),
    "dense": (0.4, 0.8, 1.0, 1.0, 1.0),
    "window": (0.1, 0.1, 0.1, 0.1, 0.1),
    "recurrent": (0.1, 0.2, 0.3, 0.4, 0.6),
}
"""By the first layer's mixer: looks after every 20 steps."""


def spec(**tables: Any) -> SearchSpec:
    given: dict[str, Any] = {
        "space": {"mixers": ["full", "dense", "window", "recurrent"], "window": {"window": [8]}},
        "recipe": {"steps": STEPS, "batch_size": ROWS, "eval_every": 20, "stop_at": 0.0},
        "objectives": {"maximize": [], "minimize": [HALF, "state_bytes"]},
        "search": {"trials": 4, "concurrency": 3},
        **tables,
    }
    return SearchSpec.from_dict(fake_spec(**given))


class Bench:
    """A campaign whose worker hands in curves."""

    def __init__(self, store: Store, *, resume: bool = False, **tables: Any) -> None:
        given = spec(**tables)
        self.problem, self.store = Problem.of(given, REGISTRY), store
        if resume:
            self.search = store.search(given.name).id
            store.mark_orphans(self.search)
        else:
            objectives = [objective.to_json() for objective in self.problem.objectives]
            self.search = store.create_search(given.name, given.to_json(), objectives)
        self.campaign = Campaign(self.problem, store=store, search_id=self.search)
        self.campaign.prepare(survey(self.problem))

    def work(self, order: TrialOrder, *, diverged: bool = False) -> tuple[str, str]:
        for run in order.runs:
            curve = CURVES[order.arch.layers[0].mixer]
            found = fake_measurement(self.problem, REGISTRY, order.arch, run.task, run.seed, diverged=diverged)
            looks = [{"step": 20.0 * (at + 1), "loss": 1.0, "accuracy": value} for at, value in enumerate(curve)]
            self.campaign.measured(order, run, {**found, "curve": looks, "seq_len": LENGTH})
        return self.campaign.finished(order)

    def order(self) -> TrialOrder:
        found = self.campaign.next()
        assert isinstance(found, TrialOrder)
        return found

    def run(self) -> None:
        for _ in range(200):
            order = self.campaign.next()
            if isinstance(order, TrialOrder):
                self.work(order)
            elif order == "done":
                return
        raise AssertionError("the campaign does not end")

    def trials(self, **wanted: Any) -> list[TrialRecord]:
        return self.store.trials(self.search, **wanted)

    def tokens(self, trial: TrialRecord, split: str = "test") -> list[float | None]:
        frame = self.store.metrics_frame(self.search)
        mine = frame[(frame["trial"] == trial.id) & (frame["name"] == HALF) & (frame["split"] == split)]
        return [float(value) for value in mine.sort_values("seed")["value"]]


@pytest.fixture(autouse=True)
def score_of_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, "full", 0.3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'speed.db'}") as opened:
        yield opened


def test_tokens_are_counted_from_the_curve_and_who_never_arrives_stands_beyond_the_budget(store: Store) -> None:
    bench = Bench(store, search={"trials": 4, "concurrency": 1, "confirm_seeds": 0})
    bench.run()
    found = {trial.pattern: bench.tokens(trial) for trial in bench.trials(kinds=["reference"])}
    per_step = ROWS * LENGTH
    half = 1 / 64 + 0.5 * (1.0 - 1 / 64)
    assert found["full*3"] == [pytest.approx(per_step * (40 + 20 * (half - 0.4) / 0.2))]
    assert found["dense*3"] == [pytest.approx(per_step * (20 + 20 * (half - 0.4) / 0.4))]
    assert found["window*3"] == [2 * BUDGET]
    assert all(len(bench.tokens(trial, "validation")) == 1 for trial in bench.trials(kinds=["search"]))


def test_what_ends_before_its_reference_waits_for_it(store: Store) -> None:
    bench = Bench(store, search={"trials": 4, "concurrency": 3, "confirm_seeds": 0})
    full, dense, window = (bench.order() for _ in range(3))
    assert full.pattern == "full*3"
    assert bench.work(dense) == ("complete", WAITS)
    assert (store.trial(dense.trial).state, store.trial(dense.trial).reason) == ("queued", WAITS)
    assert bench.work(window, diverged=True)[0] == "diverged"
    assert bench.work(full) == ("complete", "")
    bench.campaign.next()
    assert (store.trial(dense.trial).state, store.trial(dense.trial).reason) == ("complete", "")
    assert bench.tokens(store.trial(dense.trial))


def test_a_list_is_timed_by_its_own_full_attention_wherever_it_stands(store: Store) -> None:
    listed = {"pattern": "listed", "architectures": ["dense", "window dense full", "full"]}
    bench = Bench(store, space=listed, compare={}, search={"concurrency": 1})
    assert not bench.problem.references
    assert bench.work(bench.order()) == ("complete", WAITS)
    bench.run()
    assert [trial.pattern for trial in bench.trials()] == ["dense*3", "window dense full", "full*3"]
    assert {trial.state for trial in bench.trials()} == {"complete"}
    dense, mixed, full = (bench.tokens(trial) for trial in bench.trials())
    assert dense < full < mixed == [2 * BUDGET]


@pytest.mark.parametrize(
    "tables",
    [
        {"space": {"architectures": ["dense", "window dense full"]}},
        {"space": {"architectures": ["dense", "full"]}, "search": {"trials": 1}},
        {"space": {"architectures": ["window", "full"]}, "budget": {"state_bytes": "20 KiB"}},
    ],
    ids=["not in it", "beyond its trials", "over budget"],
)
def test_a_list_whose_full_attention_is_not_trained_is_refused(tables: dict[str, Any]) -> None:
    space = {"pattern": "listed", **tables["space"]}
    with pytest.raises(SpecError, match=r"among the space\.architectures of a list"):
        Problem.of(spec(**{"search": {}, **tables, "space": space}), REGISTRY)


def test_what_waited_when_the_search_was_stopped_is_told_when_it_goes_on(store: Store) -> None:
    first = Bench(store)
    full, dense = first.order(), first.order()
    first.work(dense)
    first.campaign.stopped("Ctrl-C")
    assert {store.trial(order.trial).state for order in (full, dense)} == {"preempted"}
    again = Bench(store, resume=True)
    again.run()
    assert store.trial(dense.trial).state == "complete"
    assert again.tokens(store.trial(dense.trial))
    assert {trial.state for trial in again.trials()} <= {"complete", "infeasible"}


def test_a_resumed_campaign_has_the_front_of_the_one_that_ended(store: Store) -> None:
    bench = Bench(store)
    bench.run()
    again = Bench(store, resume=True)
    assert again.campaign.next() == "done"
    assert again.campaign.front == bench.campaign.front
    assert bench.campaign.front


def test_the_front_is_confirmed_beside_a_reference_of_the_same_seeds(store: Store) -> None:
    bench = Bench(store, search={"trials": 4, "concurrency": 1, "confirm_seeds": 2})
    bench.run()
    confirmed = bench.trials(kinds=["confirm"])
    assert confirmed[0].pattern == "full*3"
    assert all(list(trial.seeds) == [MAX_SEED, MAX_SEED + 1] for trial in confirmed)
    assert all(len(bench.tokens(trial)) == 2 for trial in confirmed)
    assert len({trial.digest for trial in confirmed}) == len(confirmed)
    assert all(point.confirmed for point in bench.campaign.front)


def test_a_reference_that_fails_leaves_no_number_and_says_why(store: Store) -> None:
    bench = Bench(store, search={"trials": 4, "concurrency": 2, "confirm_seeds": 0})
    full, dense = bench.order(), bench.order()
    bench.work(dense)
    bench.campaign.failed(full, "it broke")
    bench.run()
    record = store.trial(dense.trial)
    assert (record.state, bench.tokens(record)) == ("complete", [])
    assert record.reason == f"no {HALF}: full, by which it is timed, was not trained to its end (seed 0)"
    assert not bench.campaign.front


def test_an_objective_of_speed_needs_full_attention_looks_and_the_right_direction() -> None:
    with pytest.raises(SpecError, match=r"search\.references = true"):
        Problem.of(spec(search={"references": False}), REGISTRY)
    with pytest.raises(SpecError, match=r"search\.references = true"):
        Problem.of(spec(search={"references": ["dense"]}), REGISTRY)
    with pytest.raises(SpecError, match=r"is 2 looks at validation.*recipe\.eval_every = 5"):
        Problem.of(spec(recipe={"steps": STEPS, "batch_size": ROWS, "eval_every": 50}), REGISTRY)
    with pytest.raises(SpecError, match="put it in minimize"):
        Problem.of(spec(objectives={"maximize": [HALF], "minimize": ["state_bytes"]}), REGISTRY)
    found = Problem.of(spec(search={"references": ["window", "full"]}), REGISTRY)
    assert found.timer is not None
    assert found.timer.pattern(REGISTRY) == "full*3"
    assert Problem.of(spec(objectives={"maximize": ["recall"], "minimize": []}), REGISTRY).timer is None
