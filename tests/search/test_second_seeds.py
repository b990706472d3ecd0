"""Second seeds: which point is trained once more, and what a search makes of it, whatever becomes of the trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaign_bench import CampaignBench
from search_fakes import fake_spec

from archsearch.analysis.answer import Answer, read_answer
from archsearch.analysis.hypervolume import volume
from archsearch.analysis.objectives import Objective
from archsearch.errors import SpecError
from archsearch.search.ledger import TrialOrder, is_second
from archsearch.search.second_seeds import SecondSeeds, contribution
from archsearch.search.spec import MAX_SEED, SearchSpec
from archsearch.search.truth.memory import MemoryStore
from archsearch.storage import Store, TrialRecord

TWO = (Objective(name="recall", direction="maximize"), Objective(name="state_bytes", direction="minimize"))
SEARCH = {"trials": 12, "second_seeds": 0.25, "references": False, "sampler": "random", "confirm_seeds": 0}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Lucky(CampaignBench):
    """With scores that hang on architecture and seed."""

    def luck(self, digest: str, seed: int) -> float:
        return int(digest, 16) // 7 ** (seed % 5) % 100 / 1000

    def of_kind(self, kind: str) -> list[TrialRecord]:
        """Trials with their measurements."""
        return [self.store.trial(trial.id) for trial in self.trials() if trial.kind == kind]

    def second(self) -> TrialOrder:
        """Works until an order is a second seed, and returns that."""
        while True:
            order = self.campaign.next()
            assert isinstance(order, TrialOrder)
            if is_second(order):
                return order
            self.work(order)

    def seconds(self) -> list[TrialRecord]:
        return [trial for trial in self.of_kind("search") if trial.parent is not None]


def test_the_point_without_which_the_front_loses_most_comes_first_and_each_comes_once() -> None:
    seconds = SecondSeeds(TWO, 0.5, 0)
    values = {"a": (0.2, 10.0), "b": (0.8, 11.0), "c": (0.9, 30.0), "beaten": (0.1, 40.0), "none": (float("nan"), 1.0)}
    measured = {name: dict(zip(("recall", "state_bytes"), pair, strict=True)) for name, pair in values.items()}
    found = []
    while (digest := seconds.choose(measured)) is not None:
        seconds.give(digest)
        found.append(digest)
    assert found == ["b", "c", "a"]
    measured["b"]["recall"] = 0.05  # it was luck: its place is another's, which is known as well
    assert seconds.choose(measured) is None
    assert SecondSeeds(TWO, 0.5, 0).choose({}) is None


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_a_contribution_is_the_difference_of_two_volumes(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front = rng.random((7, objectives))
    edge = np.full(objectives, 1.5)
    for index, point in enumerate(front):
        expected = volume(front, edge) - volume(np.delete(front, index, axis=0), edge)
        best = front[(front <= point).all(axis=1)]
        if len(best) == 1:  # it stands on the front
            assert contribution(point, front, edge) == pytest.approx(expected)
    assert contribution(front[0], np.vstack([front, front[:1]]), edge) == 0.0


def test_a_share_of_the_trials_is_due_once_the_sampler_has_begun_to_learn() -> None:
    seconds = SecondSeeds(TWO, 0.25, 6)
    assert [trained for trained in range(12) if seconds.due(trained)] == [6, 7, 8, 9, 10, 11]
    seconds.give("a")
    assert [trained for trained in range(12) if seconds.due(trained)] == [7, 8, 9, 10, 11]
    assert not any(SecondSeeds(TWO, 0.0, 0).due(trained) for trained in range(100))


@pytest.mark.parametrize("sampler", ["nsga2", "ehvi"])
def test_a_quarter_of_the_trials_train_points_of_the_front_once_more(store: MemoryStore, sampler: str) -> None:
    bench = Lucky(store, search=SEARCH | {"sampler": sampler}).prepare().run()
    assert len(bench.trained) == len(set(bench.trained)) == 12  # with no seed twice
    assert [seed for _, seed in bench.trained].count(1) == 3
    for second in bench.seconds():
        assert second.seeds == (0, 1)
        assert second.reason == f"with the seeds of trial {second.parent} and one more"
        assert [measured.reused_from for measured in second.measurements] == [second.parent, None]


def test_answers_have_the_mean_and_the_seeds_of_a_candidate(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'seconds.db'}") as store:
        bench = Lucky(store, search=SEARCH).prepare().run()
        _check_answer(read_answer(store, "fakes"), bench)


def _check_answer(answer: Answer, bench: Lucky) -> None:
    points = answer.points.set_index("digest")
    for second in bench.seconds():
        row = points.loc[second.digest]
        values = [measured.payload["test"]["accuracy"] for measured in second.measurements]
        assert list(row["seeds"]) == [0, 1]
        assert row["recall"] == pytest.approx(np.mean(values))
        assert row["recall_std"] == pytest.approx(np.std(values, ddof=1))
    assert set(answer.front["digest"]) == {point.digest for point in bench.campaign.front}


def told(bench: Lucky, digest: str) -> list[tuple[float, ...] | None]:
    """What the sampler holds of a candidate, by Optuna's study."""
    sampler = bench.campaign._sampler
    sampler._correct()
    trials = zip(sampler._digests, sampler._study.get_trials(), strict=True)
    return [trial.values for name, trial in trials if name == digest and trial.state.is_finished()]


def test_samplers_are_told_the_mean_also_where_others_are_open(store: MemoryStore) -> None:
    bench = Lucky(store, search=SEARCH | {"sampler": "nsga2", "concurrency": 3}).prepare()
    order = bench.second()
    others = [bench.campaign.next() for _ in range(2)]
    before = bench.campaign._known[order.arch.digest].values
    bench.work(order)
    now = bench.campaign._known[order.arch.digest].values
    assert before is not None
    assert now is not None
    assert now != before
    assert set(map(tuple, filter(None, told(bench, order.arch.digest)))) == {tuple(now.values())}
    for other in others:
        assert isinstance(other, TrialOrder)
        bench.work(other)
    bench.run()
    assert bench.campaign.progress.trained == 12


@pytest.mark.parametrize(("before", "sampler"), [(0, "nsga2"), (6, "ehvi"), (11, "nsga2")])
def test_a_stopped_search_goes_on_with_them(store: MemoryStore, before: int, sampler: str) -> None:
    search = SEARCH | {"sampler": sampler}
    bench = Lucky(store, recipe={"seeds": 2}, search=search).prepare()
    for _ in range(before):
        order = bench.campaign.next()
        assert isinstance(order, TrialOrder)
        bench.work(order)
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    bench.work(order, runs=0)
    bench.campaign.stopped("stopped")
    resumed = Lucky(store, recipe={"seeds": 2}, search=search).prepare().run()
    trained = bench.trained + resumed.trained
    assert len(trained) == len(set(trained)) == 9 * 2 + 3
    assert {trial.seeds for trial in resumed.seconds()} == {(0, 1, 2)}
    assert resumed.campaign.progress.trained == 12
    known = resumed.campaign._known
    again = Lucky(store, recipe={"seeds": 2}, search=search).prepare()
    for digest, one in again.campaign._known.items():
        assert (one.values, one.seeds, one.state) == (known[digest].values, known[digest].seeds, known[digest].state)
    assert again.campaign.next() == "done"
    if sampler == "nsga2":
        for second in resumed.seconds():
            assert set(map(tuple, told(again, second.digest))) == {tuple(known[second.digest].values.values())}


def test_one_that_diverges_takes_its_candidate_off_the_front(store: MemoryStore) -> None:
    bench = Lucky(store, search=SEARCH | {"sampler": "nsga2"}).prepare()
    order = bench.second()
    digest = order.arch.digest
    assert digest in {point.digest for point in bench.campaign.front}
    bench.work(order, diverged=True)
    assert digest not in {point.digest for point in bench.campaign.front}
    bench.run()
    resumed = Lucky(store, search=SEARCH | {"sampler": "nsga2"}).prepare()
    assert resumed.campaign._known[digest].state == "failed"
    assert set(told(bench, digest)) == set(told(resumed, digest)) == {None}
    assert digest not in {point.digest for point in resumed.campaign.front}


@pytest.mark.parametrize("ends", ["failed", "lost"])
def test_one_that_comes_to_nothing_leaves_its_candidate_as_it_was(store: MemoryStore, ends: str) -> None:
    bench = Lucky(store, search=SEARCH | {"retries": 0}).prepare()
    order = bench.second()
    before = bench.campaign._known[order.arch.digest].values
    if ends == "failed":
        bench.campaign.failed(order, "the worker died")
    else:
        assert bench.campaign.again(order, "the machine is gone") is None
        bench.campaign.lost(order)
    known = bench.campaign._known[order.arch.digest]
    assert (known.values, known.seeds, known.state) == (before, (0,), "measured")
    assert order.arch.digest in {point.digest for point in bench.campaign.front}
    bench.run()
    resumed = Lucky(store, search=SEARCH | {"retries": 0}).prepare().run()
    trial = store.trial(order.trial)
    assert trial.state == ("failed" if ends == "failed" else "complete")
    assert len(resumed.campaign._known[order.arch.digest].seeds) == (1 if ends == "failed" else 2)


def test_it_is_tried_again_where_its_worker_was_lost(store: MemoryStore) -> None:
    bench = Lucky(store, search=SEARCH).prepare()
    order = bench.second()
    assert bench.campaign.again(order, "the machine is gone") is not None
    bench.campaign._orders._clock = lambda: float("inf")
    bench.run()
    assert store.trial(order.trial).state == "complete"
    assert len(bench.trained) == 12


def test_references_of_the_front_have_second_seeds_too(store: MemoryStore) -> None:
    search = SEARCH | {"references": True, "trials": 20, "second_seeds": 0.5}
    bench = Lucky(store, search=search).prepare().run()
    references = {trial.digest for trial in bench.of_kind("reference")}
    assert len(references) == 3
    assert references & {second.digest for second in bench.seconds()}


def test_confirmation_has_seeds_of_its_own(store: MemoryStore) -> None:
    bench = Lucky(store, search=SEARCH | {"confirm_seeds": 2}).prepare().run()
    confirmed = bench.of_kind("confirm")
    assert confirmed
    assert {seed for trial in confirmed for seed in trial.seeds} == {MAX_SEED, MAX_SEED + 1}
    assert len(bench.trained) == len(set(bench.trained))


def test_a_candidate_that_is_drawn_again_is_answered_with_all_of_its_seeds(store: MemoryStore) -> None:
    space = {"mixers": ["dense", "window"], "dense": {"rope": 1.0}, "window": {"window": 8}}
    bench = Lucky(store, space=space, search=SEARCH | {"trials": 9, "sampler": "nsga2"}).prepare().run()
    seconds = {second.digest for second in bench.seconds()}
    assert seconds
    for trial in bench.of_kind("search"):
        if trial.digest in seconds and trial.reason.startswith("repeat of trial"):
            told_after = [second.number < trial.number for second in bench.seconds() if second.digest == trial.digest]
            assert trial.seeds == ((0, 1) if told_after == [True] else (0,))


def test_a_list_of_architectures_is_trained_whole() -> None:
    listed: dict[str, Any] = {"pattern": "listed", "architectures": ["dense", "window"]}
    spec = fake_spec(space=listed)
    spec["search"] = {"sampler": "ehvi"}
    assert SearchSpec.from_dict(spec).search.second_seeds == 0.0
    spec["search"]["second_seeds"] = 0.2
    with pytest.raises(SpecError, match=r"search\.second_seeds = 0\.2 takes trials from a list"):
        SearchSpec.from_dict(spec)
