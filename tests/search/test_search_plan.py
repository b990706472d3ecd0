"""The plan: references, trials that count, repeats, refusals, confirmation, and going on after a stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign_bench import CampaignBench
from database_kinds import POSTGRESQL, SQLITE
from search_fakes import fake_registry
from sqlalchemy import event

from archsearch.analysis.answer import marks, read_answer
from archsearch.errors import NotationError, NothingFeasibleError, SpecError
from archsearch.search.added import read_candidate
from archsearch.search.ledger import TrialOrder
from archsearch.search.space import ReplayDraw
from archsearch.search.spec import MAX_SEED
from archsearch.storage import NewProposal, Store, TrialRecord
from archsearch.storage import rows as rows_module
from archsearch.storage.columns import sound

REGISTRY = fake_registry()


on_every_database = pytest.mark.parametrize("store", [SQLITE, POSTGRESQL], indirect=True)


@pytest.fixture(params=[SQLITE])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres_url") if on_server else f"sqlite:///{tmp_path / 'plan.db'}"
    with Store.open(url) as opened:
        yield opened


class Bench(CampaignBench):
    """With equal luck for every candidate, which fresh seeds take away."""

    shared_luck = 0.0

    def luck(self, digest: str, seed: int) -> float:
        return self.shared_luck if seed < MAX_SEED else 0.0


def test_references_come_first_and_trials_count_what_was_trained(store: Store) -> None:
    bench = Bench(store, budget={"state_bytes": "100 KiB"}, search={"trials": 8}).prepare().run()
    kinds = [trial.kind for trial in bench.trials()]
    assert kinds[:3] == ["reference"] * 3
    assert [trial.pattern for trial in bench.trials(kinds=["reference"])] == ["dense*3", "window*3", "recurrent*3"]
    new = [trial for trial in bench.trials(kinds=["search"]) if trial.state == "complete" and not trial.reason]
    assert len(new) == 8
    assert len({trial.digest for trial in new}) == 8


def test_what_is_trained_as_a_reference_is_not_drawn_again_before_or_after_a_stop(store: Store) -> None:
    tables: dict[str, Any] = {"search": {"trials": 8, "sampler": "ehvi"}}
    bench = Bench(store, **tables).prepare()
    for _ in range(6):
        order = bench.campaign.next()
        assert isinstance(order, TrialOrder)
        bench.work(order)
    bench = Bench(store, resume=True, **tables).prepare().run()
    digests = [trial.digest for trial in bench.trials(kinds=["reference", "search"])]
    assert len(digests) == len(set(digests)) == 3 + 8


def test_a_reference_is_exempt_from_the_budget_and_marked(store: Store) -> None:
    bench = Bench(store, budget={"state_bytes": "100 KiB"}).prepare().run()
    dense = bench.trials(kinds=["reference"])[0]
    assert (dense.state, dense.feasible) == ("complete", False)
    assert dense.digest not in {point.digest for point in bench.campaign.front}


def test_over_budget_candidates_are_recorded_and_never_handed_out(store: Store) -> None:
    bench = Bench(store, budget={"state_bytes": "40 KiB"}, search={"trials": 10, "references": False}).prepare().run()
    refused = bench.trials(states=["infeasible"])
    assert refused
    assert all("exceeds 40 KiB" in trial.reason and trial.violations for trial in refused)
    assert not {trial.digest for trial in refused} & {digest for digest, _ in bench.trained}
    assert len({trial.digest for trial in refused}) == len(refused)


def test_what_is_not_exercised_is_recorded_and_not_trained(store: Store) -> None:
    space = {"mixers": ["dense", "window"], "window": {"window": [8, 64]}}
    bench = Bench(store, space=space, search={"trials": 12}).prepare().run()
    found = [trial for trial in bench.trials(kinds=["search"]) if trial.unexercised]
    assert found
    assert all(trial.state == "infeasible" and "not exercised" in trial.reason for trial in found)
    assert not {trial.digest for trial in found} & {digest for digest, _ in bench.trained}


def test_a_reference_that_is_not_exercised_is_trained_and_stays_off_the_front(store: Store) -> None:
    space = {"mixers": ["dense", "window"], "window": {"window": [64, 8]}}
    bench = Bench(store, space=space).prepare().run()
    window = bench.trials(kinds=["reference"])[1]
    assert window.state == "complete"
    assert window.unexercised
    assert window.digest not in {point.digest for point in bench.campaign.front}


def test_every_member_of_the_front_is_confirmed_on_fresh_seeds(store: Store) -> None:
    bench = Bench(store, search={"trials": 10, "confirm_seeds": 2}).prepare()
    bench.shared_luck = 0.05
    bench.run()
    front = bench.campaign.front
    assert front
    assert all(point.confirmed for point in front)
    for point in front:
        record = store.trial(point.trial)
        assert record.kind == "confirm"
        assert record.parent is not None
        assert len(record.seeds) == 2
        assert min(record.seeds) >= MAX_SEED


def test_without_confirmation_nothing_is_measured_twice(store: Store) -> None:
    bench = Bench(store, search={"confirm_seeds": 0}).prepare().run()
    assert not bench.trials(kinds=["confirm"])


def test_a_repeat_is_answered_from_the_store_and_does_not_count(store: Store) -> None:
    space = {"mixers": ["dense", "window"], "dense": {"rope": 1.0}, "window": {"window": 8}}
    bench = Bench(store, space=space, search={"trials": 7, "references": False}).prepare().run()
    assert len(bench.trained) == len(set(bench.trained))
    repeats = [trial for trial in bench.trials(kinds=["search"]) if trial.reason.startswith("repeat of trial")]
    assert repeats
    for trial in repeats:
        assert {measured.reused_from for measured in store.trial(trial.id).measurements} != {None}
    assert bench.campaign.progress.trained == 7


@on_every_database
def test_another_search_takes_its_results_from_the_store(store: Store) -> None:
    first = Bench(store, search={"trials": 5}).prepare().run()
    second = Bench(store, name="second", search={"trials": 5}).prepare().run()
    assert not set(first.trained) & set(second.trained)
    assert second.campaign.progress.reused >= 3
    reused = [trial for trial in second.trials() if trial.reason.startswith("measured before, in trial")]
    assert len(reused) == second.campaign.progress.reused


def test_a_space_that_is_used_up_ends_the_search_and_says_so(store: Store) -> None:
    space = {"mixers": ["dense", "window"], "dense": {"rope": 1.0}, "window": {"window": 8}}
    bench = Bench(store, space=space, search={"trials": 50}).prepare().run()
    assert bench.campaign.progress.ended == "all 8 candidates of the space were tried"
    assert len({digest for digest, _ in bench.trained}) == 8


def test_draws_that_lead_nowhere_end_the_search_and_say_so(store: Store) -> None:
    tables: dict[str, Any] = {"budget": {"state_bytes": "2 KiB"}, "search": {"trials": 30, "max_draws": 60}}
    bench = Bench(store, **tables).prepare().run()
    assert "60 draws in a row gave nothing to train" in bench.campaign.progress.ended


@pytest.mark.parametrize("n_layers", [2, 12], ids=["every candidate judged", "a sample judged"])
def test_nothing_feasible_names_the_tightest_figure(store: Store, n_layers: int) -> None:
    bench = Bench(store, budget={"state_bytes": 100}, model={"n_layers": n_layers}, search={"max_draws": 50})
    with pytest.raises(NothingFeasibleError, match=rf"window\*{n_layers}, has state_bytes@1024 = .* exceeds 100 B"):
        bench.prepare()
    assert not bench.trials(kinds=["reference"])


def test_nothing_exercised_is_told_apart_from_the_budget(store: Store) -> None:
    bench = Bench(store, space={"mixers": ["window"], "window": {"window": [64]}})
    with pytest.raises(NothingFeasibleError, match="sees all of up to 64 tokens"):
        bench.prepare()


@on_every_database
def test_a_diverged_trial_gets_its_state_and_the_search_goes_on(store: Store) -> None:
    bench = Bench(store, search={"references": False, "trials": 3}).prepare()
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    bench.work(order, diverged=True)
    assert store.trial(order.trial).state == "diverged"
    assert "not finite at step 3" in store.trial(order.trial).reason
    bench.run()
    assert bench.campaign.progress.trained == 3


def test_a_failed_trial_gets_its_reason_and_the_search_goes_on(store: Store) -> None:
    bench = Bench(store, search={"references": False, "trials": 3}).prepare()
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    bench.campaign.failed(order, "the worker died")
    assert (store.trial(order.trial).state, store.trial(order.trial).reason) == ("failed", "the worker died")
    bench.run()
    assert not bench.trials(states=["queued", "running"])


def test_no_more_jobs_are_handed_out_than_may_run(store: Store) -> None:
    bench = Bench(store, search={"concurrency": 2}).prepare()
    orders = [bench.campaign.next() for _ in range(3)]
    assert [isinstance(order, TrialOrder) for order in orders] == [True, True, False]
    assert orders[2] == "wait"


def test_one_at_a_time_gives_the_same_search_again(tmp_path: Path) -> None:
    seen = []
    for name in ("one.db", "two.db"):
        with Store.open(f"sqlite:///{tmp_path / name}") as store:
            bench = Bench(store, budget={"state_bytes": "100 KiB"}, search={"trials": 8}).prepare().run()
            seen.append([(trial.kind, trial.state, trial.digest, trial.seeds) for trial in bench.trials()])
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("before", "store"),
    [*((before, "sqlite") for before in (0, 1, 4, 6, 9)), pytest.param(4, "postgresql", marks=pytest.mark.postgres)],
    indirect=["store"],
)
def test_a_stopped_search_goes_on_and_retrains_nothing(store: Store, before: int) -> None:
    tables: dict[str, Any] = {"recipe": {"seeds": 2}, "budget": {"state_bytes": "100 KiB"}}
    bench = Bench(store, **tables).prepare()
    for _ in range(before):
        order = bench.campaign.next()
        assert isinstance(order, TrialOrder)
        bench.work(order)
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    bench.work(order, runs=1)
    bench.campaign.stopped("stopped")
    assert not bench.trials(states=["queued", "running"])

    resumed = Bench(store, resume=True, **tables).prepare().run()
    every = bench.trained + resumed.trained
    assert len(every) == len(set(every))
    assert not resumed.trials(states=["queued", "running", "preempted"])
    assert resumed.campaign.progress.trained == 6
    new = [trial for trial in resumed.trials(kinds=["search"]) if trial.state == "complete" and not trial.reason]
    assert len(new) == 6
    assert all(point.confirmed for point in resumed.campaign.front)


@on_every_database
def test_a_killed_driver_leaves_trials_that_are_taken_up(store: Store) -> None:
    bench = Bench(store, search={"concurrency": 2}).prepare()
    orders = [bench.campaign.next() for _ in range(2)]
    assert all(isinstance(order, TrialOrder) for order in orders)
    resumed = Bench(store, resume=True, search={"concurrency": 2}).prepare().run()
    assert [trial.kind for trial in resumed.trials()][:3] == ["reference"] * 3
    assert {trial.state for trial in resumed.trials()} == {"complete"}


@on_every_database
def test_a_finished_search_that_is_resumed_has_nothing_to_do(store: Store) -> None:
    Bench(store).prepare().run()
    again = Bench(store, resume=True).prepare()
    assert again.campaign.next() == "done"


LIST = {"pattern": "listed", "architectures": ["recurrent", "dense dense window", "window(window=16)", "dense"]}


def test_listed_architectures_are_tried_in_their_order_and_nothing_else(store: Store) -> None:
    bench = Bench(store, space=LIST, compare={"baseline": "dense"}, search={}).prepare().run()
    assert [trial.kind for trial in bench.trials()] == ["search"] * 4
    assert [trial.pattern for trial in bench.trials()] == [
        "recurrent*3",
        "dense*2 window",
        "window(window=16)*3",
        "dense*3",
    ]
    assert bench.problem.baseline == bench.problem.space.draw(ReplayDraw({"architecture": "dense"}))


def test_a_list_goes_on_where_it_was_stopped_and_says_what_cannot_be_trained(store: Store) -> None:
    tables: dict[str, Any] = {"space": LIST, "search": {"sampler": "random"}, "budget": {"state_bytes": "100 KiB"}}
    bench = Bench(store, **tables).prepare()
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    bench.work(order)
    bench.campaign.stopped("stopped")
    again = Bench(store, resume=True, **tables).prepare().run()
    trained = [trial.pattern for trial in again.trials(kinds=["search"], states=["complete"])]
    assert trained == ["recurrent*3", "window(window=16)*3"]
    assert [trial.pattern for trial in again.trials(states=["infeasible"])] == ["dense*2 window", "dense*3"]
    assert again.campaign.progress.ended == "all 4 candidates of the space were tried"


def read_back(bench: Bench) -> list[tuple[int, bool, dict[str, float]]]:
    """The front as everybody else reads it from the store."""
    rows = read_answer(bench.store, bench.problem.spec.name).front.to_dict("records")
    names = [objective.name for objective in bench.problem.objectives]
    return [(row["trial"], row["confirmed"], {name: pytest.approx(row[name]) for name in names}) for row in rows]


@pytest.mark.parametrize("resume", [False, True], ids=["one run", "a run for every few trials"])
def test_the_front_is_the_one_that_the_store_gives_after_every_second_trial(store: Store, resume: bool) -> None:
    tables: dict[str, Any] = {
        "tasks": [{"name": "recall-task"}, {"name": "bits"}],
        "objectives": {"maximize": ["recall"], "minimize": ["state_bytes", "bits.bits_per_byte"], "context": 1024},
        "recipe": {"seeds": 2},
        "budget": {"state_bytes": "100 KiB"},
        "search": {"trials": 12, "confirm_seeds": 2},
    }
    bench = Bench(store, **tables).prepare()
    seen: list[int] = []
    while (order := bench.campaign.next()) != "done":
        if isinstance(order, str):
            continue
        bench.shared_luck = 0.1 * (len(seen) % 3)
        bench.work(order, diverged=len(seen) % 7 == 5)
        front = bench.campaign.front
        if len(seen) % 2 == 0:  # a place that is wrong stays wrong
            assert [(point.trial, point.confirmed, dict(point.values)) for point in front] == read_back(bench)
        seen.append(len(front))
        if resume and len(seen) % 4 == 0:
            bench.campaign.stopped("stopped")
            bench = Bench(store, resume=True, **tables).prepare()
    assert any(trial.kind == "confirm" for trial in bench.trials())
    assert max(seen) > 2


def test_a_candidate_of_a_wider_budget_comes_on_the_front(store: Store) -> None:
    space = {"mixers": ["dense"], "dense": {"rope": 1.0}}
    tables: dict[str, Any] = {"space": space, "search": {"trials": 1, "references": False}}
    first = Bench(store, budget={"state_bytes": "100 KiB"}, **tables)
    candidate = next(first.problem.space.all())
    first.campaign._ledger.refuse(candidate, first.problem.judge(candidate), {})
    wider = Bench(store, resume=True, **tables).prepare().run()
    assert [point.digest for point in wider.campaign.front] == [candidate.digest]
    assert len(read_back(wider)) == 1


class Reads:
    """Counts the statements that a store executes, and the rows that it reads."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements = self.rows = 0
        event.listen(store._engine, "before_cursor_execute", self._executed)
        monkeypatch.setattr(rows_module, "sound", self._sound)

    def _executed(self, *what: Any) -> None:
        self.statements += 1

    def _sound(self, table: str, rows: Any, *what: Any) -> Any:
        self.rows += len(rows)
        return sound(table, rows, *what)

    def taken(self) -> tuple[int, int]:
        """Statements and rows since the last time."""
        found = self.statements, self.rows
        self.statements = self.rows = 0
        return found


def test_what_is_read_after_a_trial_does_not_grow_with_the_trials(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"model": {"n_layers": 8}, "search": {"trials": 50, "references": False, "sampler": "random"}}
    bench, reads = Bench(store, **tables).prepare(), Reads(store, monkeypatch)
    taken = []
    for _ in range(50):
        order = bench.campaign.next()
        assert isinstance(order, TrialOrder)
        reads.taken()
        bench.work(order)
        assert bench.campaign.front
        taken.append(reads.taken())
    assert len(set(taken)) == 1
    assert taken[0] < (20, 20)


def _propose(bench: Bench, *patterns: str) -> list[int]:
    """Adds candidates as `archsearch add` does; the ids of the proposals."""
    archs = [read_candidate(pattern, bench.problem) for pattern in patterns]
    new = [NewProposal(digest=arch.digest, arch=arch.to_json(), pattern=arch.pattern(REGISTRY)) for arch in archs]
    return [proposal.id for proposal in bench.store.propose(bench.search, new, owner="ada")]


def _linked(bench: Bench) -> list[TrialRecord]:
    """The trials that proposals came to."""
    found = [proposal.trial for proposal in bench.store.proposals(bench.search)]
    return [bench.store.trial(trial) for trial in found if trial is not None]


@on_every_database
def test_an_added_candidate_is_trained_beyond_the_trials_that_are_asked_for(store: Store) -> None:
    bench = Bench(store, search={"trials": 4}).prepare()
    _propose(bench, "dense window recurrent", "deltanet dense dense")
    bench.run()
    added = bench.trials(kinds=["added"])
    assert [(trial.pattern, trial.state) for trial in added] == [
        ("dense window recurrent", "complete"),
        ("deltanet dense*2", "complete"),
    ]
    assert [trial.id for trial in _linked(bench)] == [trial.id for trial in added]
    new = [trial for trial in bench.trials(kinds=["search"]) if trial.state == "complete" and not trial.reason]
    assert len(new) == 4
    assert bench.campaign.progress.trained == 4
    assert bench.campaign.progress.planned == bench.campaign.progress.finished


def test_candidates_that_come_while_a_search_runs_are_taken_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsearch.search.plan.LOOK_SECONDS", 0.0)
    bench = Bench(store, search={"trials": 4}).prepare()
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    _propose(bench, "dense window recurrent")
    bench.work(order)
    bench.run()
    assert [trial.state for trial in bench.trials(kinds=["added"])] == ["complete"]


def test_a_candidate_that_comes_at_the_very_end_is_trained_before_it(store: Store) -> None:
    """The driver looks once more before it ends, however lately it looked."""
    bench = Bench(store, search={"trials": 2}).prepare()
    while isinstance(order := bench.campaign.next(), TrialOrder):
        bench.work(order)
        if order.kind == "confirm" and not bench.trials(kinds=["added"]):
            _propose(bench, "dense window recurrent")
    assert order == "done"
    assert [trial.state for trial in bench.trials(kinds=["added"])] == ["complete"]


def test_an_added_candidate_of_the_front_is_confirmed_and_marked(store: Store) -> None:
    bench = Bench(store, search={"trials": 2, "confirm_seeds": 2}).prepare()
    _propose(bench, "dense dense window")
    bench.run()
    answer = read_answer(store, "fakes")
    (row,) = answer.points[answer.points["pattern"] == "dense*2 window"].to_dict("records")
    assert (row["kind"], row["confirmed"]) == ("added", True)
    assert marks(row) == "confirmed, added"
    (mine,) = [point for point in answer.to_json()["points"] if point["pattern"] == "dense*2 window"]
    assert mine["kind"] == "added"


def test_an_added_candidate_beyond_the_budget_is_infeasible_with_its_reason(store: Store) -> None:
    bench = Bench(store, budget={"state_bytes": "40 KiB"}, search={"trials": 2, "references": False}).prepare()
    _propose(bench, "dense", "window(window=64)")
    bench.run()
    dense, wide = _linked(bench)
    assert (dense.kind, dense.state) == (wide.kind, wide.state) == ("added", "infeasible")
    assert "exceeds 40 KiB" in dense.reason
    assert "not exercised: window(window=64)" in wide.reason
    assert not {dense.digest, wide.digest} & {digest for digest, _ in bench.trained}


def test_a_wider_budget_lets_an_added_candidate_in(store: Store) -> None:
    tables: dict[str, Any] = {"search": {"trials": 2, "references": False}}
    bench = Bench(store, budget={"state_bytes": "40 KiB"}, **tables).prepare()
    _propose(bench, "dense window window")
    bench.run()
    again = Bench(store, resume=True, budget={"state_bytes": "4 MiB"}, **tables).prepare().run()
    assert [trial.state for trial in again.trials(kinds=["added"])] == ["infeasible", "complete"]


def test_one_that_the_search_has_is_linked_to_its_trial(store: Store) -> None:
    bench = Bench(store, search={"trials": 2}).prepare().run()
    _propose(bench, "window")
    again = Bench(store, resume=True, search={"trials": 2}).prepare().run()
    (known,) = _linked(again)
    assert (known.kind, known.pattern) == ("reference", "window*3")
    assert not again.trained
    assert not again.trials(kinds=["added"])


def test_a_search_that_has_ended_takes_candidates_when_it_is_resumed(store: Store) -> None:
    bench = Bench(store, search={"trials": 3}).prepare().run()
    drawn = [trial.pattern for trial in bench.trials(kinds=["search"])]
    _propose(bench, "dense window recurrent")
    again = Bench(store, resume=True, search={"trials": 3}).prepare().run()
    (added,) = again.trials(kinds=["added"])
    assert {digest for digest, _ in again.trained} == {added.digest}
    assert [trial.pattern for trial in again.trials(kinds=["search"])] == drawn
    third = Bench(store, resume=True, search={"trials": 3}).prepare().run()
    assert not third.trained


def test_a_stop_leaves_an_added_candidate_to_be_gone_on_with(store: Store) -> None:
    bench = Bench(store, search={"trials": 2, "references": False}).prepare()
    _propose(bench, "dense window recurrent")
    order = bench.campaign.next()
    assert isinstance(order, TrialOrder)
    assert order.kind == "added"
    bench.campaign.stopped("stopped")
    again = Bench(store, resume=True, search={"trials": 2, "references": False}).prepare().run()
    assert [trial.state for trial in again.trials(kinds=["added"])] == ["complete"]
    assert again.campaign.progress.trained == 2


def test_the_sampler_learns_of_an_added_candidate_when_it_draws_it(store: Store) -> None:
    space = {"mixers": ["dense", "window"], "window": {"window": [8]}}
    bench = Bench(store, space=space, search={"trials": 50, "references": False}).prepare()
    _propose(bench, "dense window dense")
    bench.run()
    (added,) = bench.trials(kinds=["added"])
    (repeat,) = [trial for trial in bench.trials(kinds=["search"]) if trial.digest == added.digest]
    assert repeat.reason == f"repeat of trial {added.id}: answered from the store"
    assert bench.trained.count((added.digest, added.seeds[0])) == 1


def test_one_that_cannot_be_read_here_waits_and_ends_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(store, search={"trials": 2}).prepare()
    foreign = {"model": {}, "layers": [{"mixer": "unheard-of", "options": {}}]}
    store.propose(bench.search, [NewProposal(digest="d9", arch=foreign, pattern="unheard-of*3")])
    bench.run()
    assert [proposal.trial for proposal in store.proposals(bench.search)] == [None]
    assert caplog.text.count('"unheard-of*3", which was added to the search, cannot be trained here') == 1


def test_a_mixer_beside_the_space_is_recorded_with_its_source(store: Store) -> None:
    space = {"mixers": ["dense", "window"], "window": {"window": [8]}}
    bench = Bench(store, space=space, search={"trials": 2, "references": False}).prepare()
    _propose(bench, "dense recurrent dense")
    bench.run()
    assert list(store.parts(bench.search)) == ["mixer:recurrent"]


def test_changed_source_has_an_added_candidate_trained_again(store: Store) -> None:
    bench = Bench(store, search={"trials": 2}).prepare()
    _propose(bench, "dense window recurrent")
    bench.run()
    (added,) = bench.trials(kinds=["added"])
    store.set_trial_state(added.id, "superseded", "other source")
    again = Bench(store, resume=True, search={"trials": 2}).prepare().run()
    assert [trial.state for trial in again.trials(kinds=["added"])] == ["superseded", "complete"]


def test_a_bad_candidate_is_refused_in_the_words_of_the_notation(store: Store) -> None:
    bench = Bench(store)
    with pytest.raises(NotationError, match=r"expected a count of repeats"):
        read_candidate("dense*x", bench.problem)
    with pytest.raises(NotationError, match=r'unknown mixer "dens".*did you mean "dense"'):
        read_candidate("dens", bench.problem)
    with pytest.raises(SpecError, match=r'"dense\*2" has 2 layers, and model.n_layers = 3: write one layer'):
        read_candidate("dense*2", bench.problem)


def test_a_search_over_backbones_and_widths_goes_on_and_says_what_it_drew(store: Store) -> None:
    tables: dict[str, Any] = {
        "space": {
            "mixers": ["dense", "window"],
            "ffn_dim": [0, 15],
            "backbone": {"n_heads": [2, 4], "experts_per_token": [1, 2]},
        },
        "model": {"channel_mixer": "moe"},
        "search": {"trials": 6, "confirm_seeds": 0, "references": False},
    }
    first = Bench(store, **tables).prepare()
    for _ in range(3):
        order = first.campaign.next()
        assert isinstance(order, TrialOrder)
        first.work(order)
    first.campaign.stopped("stopped")
    bench = Bench(store, resume=True, **tables).prepare().run()
    found = bench.trials()
    new = [trial for trial in found if trial.state == "complete" and not trial.reason]
    assert len(new) == len({trial.digest for trial in new}) == 6
    refused = [trial for trial in found if trial.state == "infeasible" and "ffn_dim = 15" in trial.reason]
    assert refused
    assert not {trial.digest for trial in refused} & {digest for digest, _ in bench.trained}
    answer = read_answer(store, "fakes")
    by_trial = {trial.id: trial.arch["model"] for trial in found}
    for point in answer.to_json()["points"]:
        drawn = point["backbone"]
        assert drawn == {key: by_trial[point["trial"]][key] for key in ("n_heads", "experts_per_token")}
    assert answer.validity.scale["heads"] == "2 or 4"
