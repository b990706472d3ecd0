"""What objectives name of a task beside its primary metric: paired, corrected with all else, and told."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from typing import Any

import pytest

from archsearch.analysis.asked_metrics import further_metrics
from archsearch.analysis.compared import Compared, Comparison
from archsearch.analysis.comparison import judged
from archsearch.analysis.comparison_frame import frame
from archsearch.analysis.comparison_words import remarks
from archsearch.analysis.objectives import Objective
from archsearch.analysis.scores import NOISE, UNTOLD, Score, scores_of
from archsearch.analysis.speed import Timed

Run = tuple[str, dict[str, Any]]

AT_TWICE = {"niah": {"accuracy@2x": "maximize"}}


def run(
    seed: int, accuracy: float | None, *, task: str = "niah", **further: float | None
) -> tuple[str, dict[str, Any]]:
    """A run of two learning rates, the higher of which is the better one on validation."""
    complete = accuracy is not None
    test = {"accuracy": accuracy, **{name.replace("_at_", "@"): value for name, value in further.items()}}
    return task, {
        "seed": seed,
        "metric": "accuracy",
        "direction": "maximize",
        "chance": 0.1,
        "status": "complete" if complete else "diverged",
        "test": test if complete else {},
        "sweep": [
            {"learning_rate": rate, "validation": {"accuracy": accuracy and accuracy * share}}
            for rate, share in ((0.01, 0.9), (0.1, 1.0))
        ],
    }


def row(name: str, runs: list[Run], **speeds: Timed) -> Compared:
    by_task = {"niah": speeds} if speeds else {}
    further: Any = {"niah": {"accuracy@2x": "maximize", "tokens_to_half": "minimize"}} if speeds else AT_TWICE
    scores = scores_of(runs, further, by_task)
    return Compared(trial=1, pattern=name, digest=name, costs={}, scores=scores, speeds=by_task)


def at_twice(*values: float) -> list[Run]:
    return [run(seed, 0.9 + seed / 100, accuracy_at_2x=value) for seed, value in enumerate(values)]


def held(base: Compared, *others: Compared) -> Comparison:
    told = judged(base, others)
    return Comparison(
        search="held",
        scored=tuple(base.scores),
        untimed=(),
        baseline=base,
        others=told,
        waiting=(),
        comparisons=sum(not isnan(score.p) for one in told for score in one.scores.values()),
    )


def test_objectives_name_metrics_of_a_task_beside_its_primary_one() -> None:
    names = ["recall", "niah.accuracy", "niah.accuracy@2x", "hops.accuracy[2 hops]", "hops:deep(n=0.5).mine"]
    objectives = [Objective(name=name, direction="maximize") for name in names]
    objectives += [Objective(name="hops.tokens_to_half", direction="minimize", budget=100.0)]
    objectives += [Objective(name="state_bytes", direction="minimize", unit="bytes", metric="state_bytes@1024")]
    found = further_metrics(objectives, {"niah": "accuracy", "hops": "accuracy", "hops:deep(n=0.5)": "accuracy"})
    assert found == {
        "niah": {"accuracy@2x": "maximize"},
        "hops": {"accuracy[2 hops]": "maximize", "tokens_to_half": "minimize"},
        "hops:deep(n=0.5)": {"mine": "maximize"},
    }


def test_a_further_metric_is_that_of_the_models_that_the_primary_one_has_chosen() -> None:
    scores = scores_of(at_twice(0.5, 0.7, 0.6), AT_TWICE)
    assert list(scores) == ["niah", "niah.accuracy@2x"]
    primary, further = scores.values()
    assert (primary.name, further.name) == tuple(scores)
    assert further.values == {0: 0.5, 1: 0.7, 2: 0.6}
    assert (further.mean, further.error) == (pytest.approx(0.6), pytest.approx(0.1 / 3**0.5))
    assert further.rates == primary.rates
    assert list(primary.notes()) == ["best at the highest rate"]
    assert not list(further.notes()), "what is told of the rates is told once"


def test_a_metric_that_is_not_measured_or_diverged_has_no_mean() -> None:
    lacking = scores_of([run(0, 0.9), run(1, 0.8)], AT_TWICE)["niah.accuracy@2x"]
    assert isnan(lacking.mean)
    assert list(lacking.notes()) == ["seed 0, 1 has no finite accuracy@2x"]
    gone = scores_of([*at_twice(0.5, 0.7), run(2, None)], AT_TWICE)["niah.accuracy@2x"]
    assert (gone.diverged, gone.whole) == ((2,), {})
    assert isnan(gone.mean)


def test_every_metric_is_paired_and_all_are_corrected_together() -> None:
    """A difference that one comparison would call clear is within noise where the family is larger."""
    base, other = row("full", at_twice(0.50, 0.60, 0.70)), row("kda", at_twice(0.60, 0.712, 0.79))
    alone = judged(*_only("niah.accuracy@2x", base, other))[0].scores["niah.accuracy@2x"]
    assert alone.against is not None
    assert alone.against.mean == pytest.approx(0.1 + 0.002 / 3)
    assert alone.clear
    found = held(base, other)
    score = found.others[0].scores["niah.accuracy@2x"]
    assert found.comparisons == 2
    assert score.p == pytest.approx(2 * alone.p)
    many = [row(f"kda{index}", at_twice(0.5 + 0.01 * index, 0.6, 0.7 - 0.02 * index)) for index in range(1, 9)]
    assert held(base, other, *many).others[0].scores["niah.accuracy@2x"].verdict == NOISE


def _only(name: str, base: Compared, *others: Compared) -> tuple[Compared, list[Compared]]:
    kept = [replace(one, scores={name: one.scores[name]}) for one in (base, *others)]
    return kept[0], kept[1:]


def timed(*tokens: float) -> Timed:
    arrived = [one for one in tokens if not isnan(one)]
    mean = sum(arrived) / len(arrived) if arrived else None
    return Timed(
        tokens=mean, arrived=len(arrived), seeds=len(tokens), budget=5e4, by_seed=dict(enumerate(map(float, tokens)))
    )


def test_tokens_are_compared_where_every_seed_arrived_and_nothing_is_told_where_not() -> None:
    base = row("full", at_twice(0.5, 0.5, 0.5), tokens_to_half=timed(10_000, 11_000, 12_000))
    fast = row("kda", at_twice(0.5, 0.5, 0.5), tokens_to_half=timed(4_000, 5_100, 6_000))
    slow = row("gla", at_twice(0.5, 0.5, 0.5), tokens_to_half=timed(20_000, float("nan"), 30_000))
    found = held(base, fast, slow)
    scores: list[Score] = [one.scores["niah.tokens_to_half"] for one in found.others]
    assert scores[0].better, "fewer tokens are better"
    assert scores[0].show(scores[0].mean) == "5.03 k"
    assert scores[1].verdict == UNTOLD
    assert list(scores[1].notes()) == ["seed 1 not in 50 k tokens"]
    assert any("no mean where the training of a seed did not suffice" in line for line in remarks(found))


def test_what_is_compared_and_how_rates_were_chosen_is_said() -> None:
    said = list(remarks(held(row("full", at_twice(0.5, 0.6, 0.7)), row("kda", at_twice(0.4, 0.5, 0.7)))))
    assert "in any of the 2 comparisons that are made, of every other architecture on every metric," in said[0]
    assert (
        said[1]
        == "learning rates are chosen by niah.accuracy on validation, and niah.accuracy@2x is of the models so chosen"
    )
    alone = row("full", at_twice(0.5, 0.6, 0.7))
    assert not any("comparisons that are made" in line for line in remarks(held(alone)))


def test_the_frame_has_a_row_for_each_architecture_and_metric() -> None:
    found = held(row("full", at_twice(0.5, 0.6, 0.7)), row("kda", at_twice(0.4, 0.5, 0.7)))
    table = frame(found).set_index(["metric", "architecture"])
    assert list(table.index) == [(metric, name) for metric in ("accuracy", "accuracy@2x") for name in ("full", "kda")]
    assert table.loc[("accuracy@2x", "full"), "verdict"] == "baseline"
    assert table.loc[("accuracy@2x", "kda"), "seeds"] == "0:0.4 1:0.5 2:0.7"
    assert table["task"].unique().tolist() == ["niah"]
    plain = found.to_json()
    assert plain["scored"] == ["niah", "niah.accuracy@2x"]
    assert plain["architectures"][1]["metrics"]["niah.accuracy@2x"]["values"] == {0: 0.4, 1: 0.5, 2: 0.7}
    assert list(plain["architectures"][1]["tasks"]) == ["niah"]
