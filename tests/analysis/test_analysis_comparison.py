"""A comparison: paired differences from a baseline, rates that stand alone, and what is not compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archsearch.analysis.compared import Comparison
from archsearch.analysis.comparison import compare
from archsearch.analysis.comparison_words import remarks
from archsearch.errors import SpecError
from archsearch.registry import Registry
from archsearch.storage import NewTrial, Store

MODEL = {"d_model": 16, "n_heads": 2}
RATES = (0.001, 0.01, 0.1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as opened:
        yield opened


def payload(task: str, seed: int, sweep: dict[float, float | None], *, direction: str = "maximize") -> dict[str, Any]:
    """A run whose test says what its best rate said on validation."""
    finite = [value for value in sweep.values() if value is not None]
    best = (max if direction == "maximize" else min)(finite) if finite else None
    return {
        "key": f"{task}/{seed}/{sweep}",
        "digest": "",
        "task": task,
        "seed": seed,
        "metric": "score",
        "direction": direction,
        "chance": 0.1,
        "status": "complete" if finite else "diverged",
        "test": {"score": best} if finite else {},
        "validation": {},
        "sweep": [
            {"learning_rate": rate, "validation": {} if value is None else {"score": value}}
            for rate, value in sweep.items()
        ],
        "curve": [],
    }


def add(
    store: Store,
    search: int,
    pattern: str,
    runs: list[dict[str, Any]],
    *,
    state: str = "complete",
    kind: str = "search",
    seeds: tuple[int, ...] = (0, 1, 2),
) -> None:
    arch = {"model": MODEL, "layers": [{"mixer": pattern.partition("*")[0], "options": {}}] * 2}
    made = NewTrial(
        kind=kind,
        state="queued",
        digest=pattern,
        pattern=pattern,
        arch=arch,
        params={},
        seeds=list(seeds),
        costs={"s@1": 2.0},
        violations={},
    )
    trial = store.add_trial(search, made)
    for run in runs:
        store.add_measurement(trial, run, {}, task=run["task"])
    store.set_trial_state(trial, state, "over budget" if state == "infeasible" else "")


def filled(store: Store, compare: Any = None) -> None:
    search = store.create_search("held", {"compare": {"baseline": "full"} if compare is None else compare}, [])

    def runs(*middle: float, low: float = 0.1, high: float = 0.1, direction: str = "maximize") -> list[dict[str, Any]]:
        rates = [dict(zip(RATES, (low, value, high), strict=True)) for value in middle]
        return [payload("recall", seed, sweep, direction=direction) for seed, sweep in enumerate(rates)]

    add(store, search, "kda*2", runs(0.90, 0.92, 0.91, low=0.8, high=0.7))
    add(store, search, "full*2", runs(0.60, 0.62, 0.61))
    add(store, search, "gla*2", runs(0.62, 0.58, 0.63, high=0.9))
    add(store, search, "moba*2", [*runs(0.5, 0.5), payload("recall", 2, dict.fromkeys(RATES))], state="diverged")
    add(store, search, "nsa*2", [], state="infeasible")


def held(store: Store, baseline: str | None = None) -> Comparison:
    return compare(store, "held", Registry(), baseline)


def test_differences_are_paired_and_corrected(store: Store, installed: Registry) -> None:
    filled(store)
    found = compare(store, "held", installed)
    assert found.baseline.pattern == "full*2"
    scores = {row.pattern: row.scores["recall"] for row in found.others}
    assert list(scores) == ["kda*2", "gla*2", "moba*2"]
    assert found.comparisons == 2
    kda = scores["kda*2"]
    assert kda.against is not None
    assert (kda.mean, kda.against.mean) == (pytest.approx(0.91), pytest.approx(0.3))
    assert kda.clear
    assert kda.better
    assert found.waiting == (("nsa*2", "infeasible", "over budget"),)


def test_a_seed_that_diverged_leaves_no_mean(store: Store) -> None:
    filled(store)
    moba = {row.pattern: row.scores["recall"] for row in held(store, "full*2").others}["moba*2"]
    assert moba.diverged == (2,)
    assert math.isnan(moba.mean)
    assert not moba.clear


def test_a_rate_that_stands_alone_and_one_at_the_end_are_told(store: Store) -> None:
    filled(store)
    rates = {row.pattern: row.scores["recall"].rates for row in held(store, "kda*2").rows}
    assert (rates["kda*2"].best, rates["kda*2"].fragile, rates["kda*2"].at_end) == (0.01, False, "")
    assert rates["full*2"].fragile
    assert (rates["gla*2"].best, rates["gla*2"].at_end) == (0.1, "highest")
    assert rates["kda*2"].means == pytest.approx({0.001: 0.8, 0.01: 0.91, 0.1: 0.7})


def test_a_metric_to_be_minimised_is_better_below(store: Store) -> None:
    search = store.create_search("held", {}, [])
    for pattern, level in (("full*2", 2.0), ("kda*2", 1.0)):
        sweeps = [dict.fromkeys(RATES, level + seed / 100 * (level - 1.5)) for seed in range(3)]
        runs = [payload("text", seed, sweep, direction="minimize") for seed, sweep in enumerate(sweeps)]
        add(store, search, pattern, runs)
    (kda,) = held(store).others
    assert kda.scores["text"].better
    assert held(store, "kda*2").others[0].scores["text"].clear
    assert not held(store, "kda*2").others[0].scores["text"].better


def test_without_a_word_the_first_is_the_baseline(store: Store) -> None:
    filled(store, compare=3)
    assert held(store).baseline.pattern == "kda*2"


def test_a_baseline_that_is_none_of_them_is_refused(store: Store) -> None:
    filled(store)
    with pytest.raises(SpecError, match='"kd" is none of the architectures that "held" has measured'):
        held(store, "kd")


def test_a_search_without_a_complete_trial_is_refused(store: Store) -> None:
    store.create_search("held", {}, [])
    with pytest.raises(SpecError, match="has no trial that is complete: wait for one, or `archsearch resume held`"):
        held(store)


def steady(level: float, direction: str = "maximize") -> list[dict[str, Any]]:
    return [payload("recall", seed, dict.fromkeys(RATES, level + seed / 100), direction=direction) for seed in range(3)]


def test_a_comparison_without_a_baseline_takes_the_first_of_its_list(store: Store, installed: Registry) -> None:
    """References that were asked for beside the list are trained first, and are not the baseline for that."""
    spec = {"compare": {"baseline": None}, "space": {"pattern": "listed", "architectures": ["gla", "kda*2"]}}
    search = store.create_search("held", spec, [])
    add(store, search, "full*2", steady(0.5), kind="reference")
    add(store, search, "gla*2", steady(0.4))
    assert compare(store, "held", installed).baseline.pattern == "gla*2"
    assert compare(store, "held", installed, "full").baseline.pattern == "full*2"


def test_the_first_of_a_list_that_is_not_measured_is_not_replaced(store: Store, installed: Registry) -> None:
    spec = {"compare": {"baseline": None}, "space": {"pattern": "listed", "architectures": ["gla", "kda", "linear"]}}
    search = store.create_search("held", spec, [])
    add(store, search, "gla*2", [], state="infeasible")
    add(store, search, "kda*2", steady(0.4))
    with pytest.raises(SpecError, match=r'"gla" is none of the architectures .* name one of them as --baseline'):
        compare(store, "held", installed)
    waiting = compare(store, "held", installed, "kda").waiting
    assert waiting == (("gla*2", "infeasible", "over budget"), ("linear", "not begun", ""))


def test_trials_of_one_architecture_are_one_row_at_the_place_of_the_first(store: Store) -> None:
    search = store.create_search("held", {}, [])
    add(store, search, "full*2", steady(0.5), kind="reference")
    add(store, search, "kda*2", steady(0.4))
    add(store, search, "full*2", steady(0.5))
    for state in ("failed", "infeasible"):
        add(store, search, "gla*2", [], state=state)
    found = held(store)
    assert [row.pattern for row in found.rows] == ["full*2", "kda*2"]
    assert found.waiting == (("gla*2", "infeasible", "over budget"),)


def test_a_candidate_that_was_given_a_second_seed_is_told_by_both(store: Store) -> None:
    search = store.create_search("held", {}, [])
    add(store, search, "full*2", steady(0.5)[:1], seeds=(0,))
    add(store, search, "kda*2", steady(0.4)[:1], seeds=(0,))
    add(store, search, "full*2", steady(0.5)[:2], seeds=(0, 1))
    found = held(store)
    assert [(row.pattern, list(row.scores["recall"].values)) for row in found.rows] == [
        ("full*2", [0, 1]),
        ("kda*2", [0]),
    ]


def test_a_metric_of_speed_that_nothing_times_is_told(store: Store) -> None:
    asked = [{"name": "recall.tokens_to_half", "direction": "minimize"}]
    search = store.create_search("held", {}, asked)
    add(store, search, "gla*2", steady(0.5))
    found = held(store)
    assert (found.scored, found.untimed) == (("recall",), ("recall.tokens_to_half",))
    assert any(line.startswith("not compared: recall.tokens_to_half, as full attention") for line in remarks(found))


def test_an_empty_baseline_is_refused_as_it_is_written(store: Store) -> None:
    filled(store)
    with pytest.raises(SpecError, match=r'^"" is none'):
        held(store, "")


def test_a_seed_without_a_value_leaves_no_mean(store: Store) -> None:
    """A complete run's metric may be infinite, as a perplexity, and is stored as none."""
    search = store.create_search("held", {}, [])
    add(store, search, "full*2", steady(0.5))
    runs = steady(0.4)
    runs[1]["test"]["score"] = None
    add(store, search, "kda*2", runs)
    (kda,) = held(store).others
    assert math.isnan(kda.scores["recall"].mean)
    assert kda.scores["recall"].diverged == ()


def test_a_rate_that_is_worse_than_chance_gains_nothing(store: Store) -> None:
    search = store.create_search("held", {}, [])
    runs = [
        payload("text", seed, dict(zip(RATES, (9.0, -1.0, 0.1), strict=True)), direction="minimize")
        for seed in range(3)
    ]
    add(store, search, "full*2", runs)
    assert held(store).baseline.scores["text"].rates.fragile


def test_trainings_that_ended_early_are_told(store: Store) -> None:
    """They have read fewer tokens than those beside them: scores above where they stop are not of equal terms."""
    search = store.create_search("held", {"compare": {"baseline": "full*2"}}, [])
    whole = {"recipe": {"steps": 100}, "seq_len": 8, "steps": 100, "solved_at": 100}
    early = {**whole, "steps": 60, "solved_at": 60}
    add(store, search, "full*2", [payload("recall", seed, {0.01: 0.996}) | whole for seed in (0, 1)])
    add(store, search, "kda*2", [payload("recall", seed, {0.01: 0.999}) | (whole, early)[seed] for seed in (0, 1)])
    found = held(store)
    assert [row.scores["recall"].solved for row in found.rows] == [(), (1,)]
    assert any(line.startswith("1 of 4 trainings ended before their last step") for line in remarks(found))


def test_a_single_learning_rate_is_told(store: Store) -> None:
    """Neither a lone good rate nor one at the end of the list can be known by one."""
    search = store.create_search("held", {"compare": {"baseline": "full*2"}}, [])
    add(store, search, "full*2", [payload("recall", seed, {0.01: 0.9}) for seed in (0, 1)])
    assert any(line.startswith("one learning rate, 0.01, was tried") for line in remarks(held(store)))
    add(store, search, "kda*2", [payload("recall", seed, {0.01: 0.9, 0.03: 0.8}) for seed in (0, 1)])
    assert not any("was tried" in line for line in remarks(held(store)))
