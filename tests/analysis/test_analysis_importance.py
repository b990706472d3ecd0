"""Importance: equal to Optuna's own figures, and silent where nothing can be said."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import optuna
import pytest

from archsearch.analysis.importance import BEST, COLUMNS, FEWEST, Choices, divergences, importances


def drawn(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Choices of a small space in which one choice opens another."""
    rng = random.Random(seed)
    params = []
    for _ in range(count):
        chosen: dict[str, Any] = {
            f"layer{index}.mixer": rng.choice(["full", "linear", "sliding"]) for index in range(3)
        }
        for index in range(3):
            if chosen[f"layer{index}.mixer"] == "linear":
                chosen[f"layer{index}.linear.decay"] = rng.choice(["none", "head", "channel"])
        params.append({**chosen, "period": rng.choice([1, 2]), "only": "this"})
    return params


def values_of(params: list[dict[str, Any]], *, seed: int = 1) -> list[float]:
    """Less is better: a full layer 1 helps, a decay by channel in layer 0 a little."""
    rng = random.Random(seed)
    return [
        -float(chosen["layer1.mixer"] == "full")
        - 0.4 * (chosen.get("layer0.linear.decay") == "channel")
        + rng.gauss(0, 0.3)
        for chosen in params
    ]


@pytest.mark.parametrize("count", [FEWEST, 60, 500])
def test_equal_to_optunas_evaluator(count: int) -> None:
    params = drawn(count)
    losses = values_of(params)
    kinds: dict[str, dict[Any, None]] = {}
    for chosen in params:
        for name, value in chosen.items():
            kinds.setdefault(name, {})[value] = None
    distributions = {name: optuna.distributions.CategoricalDistribution(tuple(seen)) for name, seen in kinds.items()}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=chosen, distributions={name: distributions[name] for name in chosen}, value=loss
            )
            for chosen, loss in zip(params, losses, strict=True)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST).evaluate(study)
    choices = Choices.of(params)
    found = dict(zip(choices.names, divergences(choices, np.array(losses)), strict=True))
    assert found == pytest.approx(expected, abs=1e-12)
    assert max(found.values()) > 1e-3


def test_the_choice_that_decides_comes_first_and_is_clear() -> None:
    params = drawn(300)
    table = importances(params, values_of(params))
    assert list(table.columns) == list(COLUMNS)
    assert table["choice"][0] == "layer1.mixer"
    assert bool(table["clear"][0])
    assert table["importance"].sum() == pytest.approx(1.0)
    assert table.set_index("choice").loc["only", "importance"] == 0.0
    assert (table["error"] >= 0).all()


def test_noise_is_seldom_clear() -> None:
    rng = random.Random(3)
    params = drawn(100)
    clear = [importances(params, [rng.random() for _ in params], seed=seed)["clear"].sum() for seed in range(20)]
    assert sum(clear) / (20 * 8) < 0.12


def test_the_same_call_gives_the_same_table() -> None:
    params = drawn(50)
    first, second = (importances(params, values_of(params)) for _ in range(2))
    assert first.equals(second)


def test_narrowed_options_count_as_one_choice() -> None:
    assert Choices.of([{"a.decay": 1}, {"a.decay[1|2]": 2}]).names == ("a.decay",)


@pytest.mark.parametrize(
    ("params", "losses"),
    [
        ([], []),
        (drawn(FEWEST - 1), [float(index) for index in range(FEWEST - 1)]),
        (drawn(30), [1.0] * 30),
        (drawn(30), [float("nan")] * 30),
        ([{}] * 30, [float(index) for index in range(30)]),
    ],
    ids=["none", "too-few", "all-equal", "all-nan", "references-only"],
)
def test_nothing_is_said_where_nothing_can_be(params: list[dict[str, Any]], losses: list[float]) -> None:
    table = importances(params, losses)
    assert list(table.columns) == list(COLUMNS)
    assert table.empty
