"""What the pages Searches and Front show, as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from archsearch_dashboard.queries import budgets, candidates, searches
from archsearch_dashboard.queries.trial import arch_of, layers_frame, why_unread
from dashboard_samples import MIB, registry

from archsearch.analysis.answer import Answer, read_answer
from archsearch.analysis.budget import Pick, best_within
from archsearch.analysis.objectives import objectives_of
from archsearch.storage import Store, TrialQuery

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url, read_only=True) as opened:
        yield opened


@pytest.fixture
def answer(store: Store) -> Answer:
    return read_answer(store, "quick")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s ago"), (89, "89 s ago"), (90, "2 min ago"), (5400, "2 h ago"), (200000, "2 days ago")],
)
def test_age(seconds: float, text: str) -> None:
    assert searches.age(NOW - timedelta(seconds=seconds), NOW) == text


def test_groups_share_no_candidate(answer: Answer, trials: dict[str, int]) -> None:
    found = {name: set(rows["trial"]) for name, rows in candidates.groups(answer).items()}
    assert found["infeasible"] == {trials["infeasible"]}
    assert found["not exercised"] == {trials["flat"]}
    assert found["failed"] == {trials[name] for name in ("failed", "diverged", "preempted", "cancelled", "nan")}
    assert found["references"] == {trials[name] for name in ("all-full", "pure-linear", "pure-sliding")}
    listed = [trial for group in found.values() for trial in group] + list(answer.front["trial"])
    assert len(listed) == len(set(listed)) == len(answer.points)


def test_progress_counts_what_was_trained(answer: Answer) -> None:
    assert searches.planned(answer.search) == 16
    assert searches.trained(answer) == 10  # 8 complete, one diverged, one failed


def test_the_budget_is_the_spec_s(answer: Answer) -> None:
    assert searches.budget_of(answer.search) == "state_bytes ≤ 18 MiB"
    assert budgets.spec_limits(answer.search) == {"state_bytes": 18 * MIB}


def test_best_values_are_those_of_the_front(answer: Answer, store: Store) -> None:
    assert searches.best_values(answer).startswith("recall 0.965 · state_bytes 5.53 KiB")
    assert searches.best_values(read_answer(store, "all-failed")) == "no front yet"


def test_a_table_has_units_and_spreads(answer: Answer, trials: dict[str, int]) -> None:
    table = candidates.candidates_table(answer.front, answer.objectives).set_index("trial")
    row = table.loc[trials["confirm-mixed"]]
    assert row["recall"] == "0.920 (0.910 to 0.930)"
    assert row["state_bytes"] == "8 MiB"
    assert row["remark"] == "confirmed"


def test_a_page_of_trials_says_why(store: Store, answer: Answer) -> None:
    objectives = objectives_of(answer.search)
    page = store.trial_page("quick", TrialQuery(), metrics=[item.metric for item in objectives])
    table = candidates.trial_table(page.rows, objectives).set_index("state")
    assert "loss was nan at step 12" in table.loc["diverged", "remark"]
    assert table.loc["diverged", "recall"] == "-"
    assert "exceeds 18 MiB" in table.loc["infeasible", "remark"]
    assert any("sees all of up to 64" in text for text in table.loc["complete", "remark"])


@pytest.mark.parametrize("unit", ["bytes", "FLOP"])
@pytest.mark.parametrize("values", [[5e3, 3e7], [7.0], [1e9, 1.1e9]], ids=["decades", "one", "close"])
def test_a_ladder_covers_the_values_in_distinct_words(values: list[float], unit: str) -> None:
    rungs = budgets.ladder(values, unit)
    assert min(values) <= rungs[0]
    assert max(values) <= rungs[-1]
    assert rungs == sorted(rungs)
    assert len({budgets.rung_text(rung, unit) for rung in rungs}) == len(rungs)


def test_a_ladder_of_nothing() -> None:
    assert budgets.ladder([], "bytes") == budgets.ladder([0.0], "bytes") == []


def pick(answer: Answer, store: Store, limit: float) -> Pick:
    values = store.values_frame("quick", ["recall"], ("test",))
    return best_within(answer.points, values, answer.objectives, "recall", {"state_bytes": limit})


@pytest.mark.parametrize(
    ("limit", "best", "words"),
    [
        (18 * MIB, "two-full", ["2 seeds and not confirmed", "ahead of the next", "a clear lead"]),
        (10 * MIB, "confirm-mixed", ["Confirmed on 2 fresh seeds", "a clear lead"]),
        (5700, "confirm-delta", ["Confirmed on 2 fresh seeds"]),
    ],
    ids=["all", "one-full-layer", "no-full-layer"],
)
def test_the_best_within_a_budget_and_how_sure(
    answer: Answer, store: Store, trials: dict[str, int], limit: float, best: str, words: list[str]
) -> None:
    found = pick(answer, store, limit)
    recall = answer.objectives[0]
    assert found.best is not None
    assert found.best["trial"] == trials[best]
    text = " ".join(budgets.sureness(found, recall))
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("limits", "best", "count"),
    [
        ({}, 0.965, 1),
        ({}, None, 1),
        ({}, 0.995, 0),
        ({"state_bytes": 24.5 * MIB}, 0.965, 1),
        ({"state_bytes": 20 * MIB}, None, 0),
        ({"decode_flops": 1e6}, None, 0),
    ],
    ids=["better", "nothing-else", "as-good", "within", "beyond-mine", "too-slow"],
)
def test_a_reference_beyond_the_search_s_budget_is_told_where_it_is_better(
    answer: Answer, trials: dict[str, int], limits: dict[str, float], best: float | None, count: int
) -> None:
    said = budgets.beyond(answer.search, answer, answer.objectives[0], limits, best)
    assert len(said) == count
    for sentence in said:
        assert f"trial {trials['all-full']}, recall 0.995" in sentence
        assert "(state_bytes ≤ 18 MiB)" in sentence


def test_one_seed_tells_nothing_of_luck(store: Store) -> None:
    answer = read_answer(store, "half")
    values = store.values_frame("half", ["recall"], ("test",))
    rows = pd.concat([answer.points, answer.points.assign(trial=99, digest="x", recall=0.1)])
    found = best_within(rows.assign(feasible=True), values, answer.objectives, "recall", {})
    assert "not confirmed" in " ".join(budgets.sureness(found, answer.objectives[0]))
    assert budgets.sureness(Pick(candidates=0, best=None, next=None, lead=None), answer.objectives[0]) == []


def test_a_trial_with_an_option_that_nothing_reads_is_shown_with_why(store: Store, trials: dict[str, int]) -> None:
    record = store.trial(next(iter(trials.values())))
    assert arch_of(record, registry()) is not None
    assert why_unread(record, registry()) == ""
    layers = [{"mixer": "full", "options": {"rope": 0.0, "rope_base": 500.0}}, {"mixer": "gone", "options": {}}]
    old = replace(record, arch={**record.arch, "layers": layers[:1]})
    assert arch_of(old, registry()) is None
    said = "full: rope_base=500.0 says nothing of rope=0: use rope above 0, or rope_base=10000.0"
    assert why_unread(old, registry()) == said
    shown = layers_frame({"layers": layers}, registry())
    assert shown["family"].tolist() == ["full", "other"]
    assert "rope_base=500.0" in shown["layer"].astype(str).str.cat(shown["options"].astype(str)).iloc[0]
