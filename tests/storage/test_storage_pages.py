"""What pages read: candidates, values without curves, revisions, and trials chosen and cut by the database."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from storage_samples import measurement, unexercised

from archsearch.errors import StorageError
from archsearch.storage import MetricValue, NewTrial, Store, TrialQuery, identity
from archsearch.storage.candidates import CANDIDATE_COLUMNS, VALUE_COLUMNS
from archsearch.storage.trial_pages import PAGE_COLUMNS

AddTrial = Callable[..., int]
COST = "state_bytes@32768"


@pytest.fixture
def measured(store: Store, add_trial: AddTrial) -> dict[str, int]:
    """Three measured trials and one that is infeasible, by the name of their pattern."""
    found = {}
    for pattern, values in (("full", (0.9, 0.7)), ("100%_linear", (0.5, 0.5)), ("half", (0.95, math.nan))):
        trial = add_trial(digest=pattern, pattern=pattern, costs={COST: float(len(pattern))})
        recall = [MetricValue(name="recall", split="validation", value=value, seed=i) for i, value in enumerate(values)]
        store.add_metrics(trial, recall)
        store.add_measurement(trial, measurement(curve=({"step": 5, "loss": 1.0},)), {}, task="mqar")
        store.set_trial_state(trial, "complete")
        found[pattern] = trial
    found["over"] = add_trial(
        digest="over",
        pattern="full*9",
        state="infeasible",
        seeds=[],
        costs={COST: 99.0},
        violations={COST: 1.0},
        reason="exceeds 9 MiB",
        unexercised=[unexercised("window")],
    )
    return found


def page(store: Store, **asked: Any) -> list[str]:
    rows = store.trial_page("first", TrialQuery(**asked), metrics=["recall", COST]).rows
    return [str(pattern) for pattern in rows["pattern"]]


def test_candidates_are_the_trials_in_short(store: Store, measured: dict[str, int]) -> None:
    short, whole = store.candidates_frame("first"), store.trials_frame("first")
    assert list(short.columns) == list(CANDIDATE_COLUMNS)
    for column in CANDIDATE_COLUMNS:
        assert short[column].tolist() == whole[column].tolist(), column
    assert short["feasible"].dtype == short["exercised"].dtype == bool


def test_values_hold_no_curve(store: Store, measured: dict[str, int]) -> None:
    frame = store.values_frame("first", ["recall", "mqar.loss", COST], ("validation", "progress", "cost"))
    assert list(frame.columns) == list(VALUE_COLUMNS)
    assert frame.groupby("name").size().to_dict() == {"recall": 6, COST: 4}
    assert frame["step"].isna().all()
    assert int(frame["value"].isna().sum()) == 1


def test_empty_frames_have_their_columns(store: Store, search_id: int) -> None:
    assert list(store.candidates_frame("first").columns) == list(CANDIDATE_COLUMNS)
    assert list(store.values_frame("first", ["recall"], ("test",)).columns) == list(VALUE_COLUMNS)
    assert list(store.trial_page("first", TrialQuery(), metrics=[COST]).rows.columns) == [*PAGE_COLUMNS, COST]


def test_a_page_is_the_newest_first(store: Store, measured: dict[str, int]) -> None:
    found = store.trial_page("first", TrialQuery(limit=2, offset=1), metrics=["recall", COST])
    assert found.total == 4
    assert found.rows["pattern"].tolist() == ["half", "100%_linear"]
    assert found.rows[COST].tolist() == [4.0, 11.0]


def test_a_mean_needs_every_seed(store: Store, measured: dict[str, int]) -> None:
    rows = store.trial_page("first", TrialQuery(), metrics=["recall"]).rows.set_index("pattern")
    assert rows.loc["full", "recall"] == pytest.approx(0.8)
    assert math.isnan(rows.loc["half", "recall"])
    assert math.isnan(rows.loc["full*9", "recall"])


def test_a_seed_that_was_never_stored_leaves_no_mean(store: Store, add_trial: AddTrial) -> None:
    trial = add_trial(seeds=[0, 1])
    store.add_metrics(trial, [MetricValue(name="recall", split="validation", value=0.5, seed=0)])
    assert math.isnan(store.trial_page("first", TrialQuery(), metrics=["recall"]).rows.loc[0, "recall"])


@pytest.mark.parametrize(
    ("asked", "patterns"),
    [
        ({"states": ("infeasible",)}, ["full*9"]),
        ({"states": ("complete", "infeasible"), "text": "FULL"}, ["full*9", "full"]),
        ({"text": "%_"}, ["100%_linear"]),
        ({"text": "9 mib"}, ["full*9"]),
        ({"kinds": ("confirm",)}, []),
        ({"order": "recall"}, ["full", "100%_linear", "full*9", "half"]),
        ({"order": COST, "descending": False}, ["half", "full", "100%_linear", "full*9"]),
        ({"order": "pattern", "descending": False}, ["100%_linear", "full", "full*9", "half"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_trials_are_chosen_and_ordered(
    store: Store, measured: dict[str, int], asked: dict[str, Any], patterns: list[str]
) -> None:
    assert page(store, **asked) == patterns


def test_trials_of_another_search_stay_out(store: Store, measured: dict[str, int]) -> None:
    store.create_search("second", {}, [])
    assert store.trial_page("second", TrialQuery()).total == 0


def test_an_unknown_order_is_refused(store: Store, search_id: int) -> None:
    with pytest.raises(StorageError, match='no order "recal" \\(did you mean "recall"'):
        page(store, order="recal")


def test_a_revision_changes_with_the_search(store: Store, search_id: int, add_trial: AddTrial) -> None:
    seen = [store.revision(search_id)]

    def changed() -> bool:
        seen.append(store.revision(search_id))
        return seen[-1] not in seen[:-1]

    trial = add_trial()
    assert changed()
    store.add_metrics(trial, [MetricValue(name="recall", split="test", value=0.5, seed=0)])
    assert changed()
    store.set_trial_state(trial, "complete")
    assert changed()
    store.heartbeat(search_id)
    assert changed()
    store.set_search_state(search_id, "complete")
    assert changed()
    assert not changed()
    assert store.revision(10**6) == ""


def test_another_search_leaves_the_revision_of_one_that_ended(store: Store, search_id: int) -> None:
    store.set_search_state(search_id, "complete")
    before = store.revision(search_id)
    other = store.create_search("second", {}, [])
    store.add_trial(
        other,
        NewTrial(
            kind="search",
            state="complete",
            arch={},
            digest="d",
            pattern="full",
            params={},
            seeds=[],
            costs={COST: 1.0},
            violations={},
        ),
    )
    assert store.revision(search_id) == before


def test_a_replaced_file_has_another_identity(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    assert identity(url) == ""
    Store.open(url).close()
    first = identity(url)
    assert first
    (tmp_path / "searches.db").rename(tmp_path / "old.db")
    Store.open(url).close()
    assert identity(url) not in ("", first)
    assert identity("postgresql+psycopg://somebody@host/name") == ""
