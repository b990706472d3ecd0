"""The running front, against the front of all trials computed again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from archsearch.analysis import front, non_dominated, points
from archsearch.analysis.objectives import Objective
from archsearch.analysis.running_front import NonDominated, RunningFront, TrialResult
from archsearch.errors import SpecError

RECALL = Objective(name="recall", direction="maximize")
BITS = Objective(name="bits.bits_per_byte", direction="minimize")
STATE = Objective(name="state_bytes", direction="minimize", unit="bytes", metric="state_bytes@32768")
FLOPS = Objective(name="decode_flops", direction="minimize", unit="FLOP", metric="decode_flops@32768")
OBJECTIVES = {
    "one": [RECALL],
    "two": [RECALL, STATE],
    "three": [STATE, RECALL, BITS],
    "four": [BITS, FLOPS, RECALL, STATE],
}
DRAWS: dict[str, Callable[[random.Random], float]] = {
    "ties": lambda rng: float(rng.randrange(4)),
    "real": lambda rng: rng.uniform(-1.0, 1.0),
    "holes": lambda rng: rng.choice([math.nan, 0.0, -0.0, 1.0, 2.0]),
}
DENSE = 6
"""Trials after each of which fronts are compared; then after every fourth, as a place that is wrong stays wrong."""


class Search:
    """Trials as a store would have them: every value by seed, from which frames and results are made."""

    def __init__(self, objectives: list[Objective], draw: Callable[[random.Random], float], seed: int) -> None:
        self.objectives, self._draw, self._rng = objectives, draw, random.Random(seed)
        self.trials: list[TrialResult] = []
        self.seeds: list[list[int]] = []
        self.rows: list[tuple[int, str, str, int | None, float]] = []

    def more(self) -> TrialResult:
        """A new trial, or another state of one that is open."""
        still_open = [index for index, trial in enumerate(self.trials) if trial.state == "running"]
        if still_open and self._rng.random() < 0.5:
            index = self._rng.choice(still_open)
            state = self._rng.choice(["complete", "complete", "diverged", "failed", "preempted"])
            self.trials[index] = replace(self.trials[index], state=state)
        else:
            index = self._begin()
        return replace(self.trials[index], values=self._values(index))

    def _begin(self) -> int:
        rng, index = self._rng, len(self.trials)
        digest = rng.choice("abcdefghijkl")
        known = any(trial.digest == digest for trial in self.trials)
        trial = TrialResult(
            trial=100 + index,
            number=index,
            digest=digest,
            pattern=f"pattern {digest}",
            kind=rng.choice(["search", "reference", "confirm"]) if known else rng.choice(["search", "reference"]),
            state=rng.choice(["running", "complete", "complete", "infeasible", "superseded"]),
            feasible=rng.random() < 0.9,
            exercised=rng.random() < 0.95,
        )
        self.trials.append(trial)
        self.seeds.append(list(range(rng.choice([1, 2, 3]))))
        for objective in self.objectives:
            cost = float(sum(map(ord, digest)) % 5)
            if objective.is_cost:
                self.rows.append((trial.trial, objective.metric, "cost", None, cost))
                continue
            for seed in self.seeds[index]:
                if rng.random() < 0.95:
                    self.rows.append((trial.trial, objective.metric, "test", seed, self._draw(rng)))
        return index

    def _values(self, index: int) -> dict[str, float]:
        mine = {(name, seed): value for trial, name, _, seed, value in self.rows if trial == 100 + index}
        found = {}
        for objective in self.objectives:
            seeds = [None] if objective.is_cost else self.seeds[index]
            found[objective.name] = float(np.mean([mine.get((objective.metric, seed), math.nan) for seed in seeds]))
        return found

    def recomputed(self) -> pd.DataFrame:
        """The front of all trials, as everything else reads it from the store."""
        trials = pd.DataFrame([trial.__dict__ for trial in self.trials]).assign(seeds=self.seeds)
        columns = ["trial", "name", "split", "seed", "value"]
        metrics = pd.DataFrame(self.rows, columns=columns).assign(step=None)
        metrics = metrics.astype({"trial": "int64", "seed": "Int64", "step": "Int64", "value": "float64"})
        return front(points(trials, metrics, self.objectives), self.objectives)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("objectives", OBJECTIVES)
def test_it_is_the_front_of_all_trials_as_they_come(objectives: str, draw: str) -> None:
    search = Search(OBJECTIVES[objectives], DRAWS[draw], seed=len(objectives + draw))
    running = RunningFront(search.objectives)
    stood = set()
    for step in range(50):
        running.add(search.more())
        found = running.points()
        if step >= DENSE and step % 4:
            continue
        expected = search.recomputed()
        assert [point.trial for point in found] == expected["trial"].tolist()
        assert [point.digest for point in found] == expected["digest"].tolist()
        assert [point.pattern for point in found] == expected["pattern"].tolist()
        assert [point.confirmed for point in found] == expected["confirmed"].tolist()
        for objective in search.objectives:
            values = [point.values[objective.name] for point in found]
            assert values == pytest.approx(expected[objective.name].tolist())
        stood |= {point.digest for point in found}
    assert len(stood) > 1


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [3, 1000], ids=["ties", "few-ties"])
def test_keys_come_change_and_go(width: int, size: int) -> None:
    rng = random.Random(width)
    held: dict[int, list[float]] = {}
    kept = NonDominated()
    for _ in range(400):
        key = rng.randrange(60)
        losses = [rng.choice([float(rng.randrange(size)), float(rng.randrange(size)), math.inf]) for _ in range(width)]
        if rng.random() < 0.2:
            held.pop(key, None)
            kept.put(key, None)
        else:
            held[key] = [math.nan if math.isinf(loss) else loss for loss in losses]
            kept.put(key, losses)
        keys = list(held)
        mask = non_dominated(np.array([held[key] for key in keys]).reshape(len(keys), width))
        assert set(kept) == {key for key, stands in zip(keys, mask, strict=True) if stands}


def _result(trial: int, digest: str, recall: float, cost: float, **changes: object) -> TrialResult:
    values = {"recall": recall, "state_bytes": cost}
    plain = TrialResult(
        trial=trial,
        number=trial,
        digest=digest,
        pattern=digest,
        kind="search",
        state="complete",
        feasible=True,
        exercised=True,
        values=values,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_a_lucky_candidate_hid_comes_back_when_fresh_seeds_are_worse() -> None:
    running = RunningFront(OBJECTIVES["two"])
    for result in (_result(0, "a", 0.9, 1.0), _result(1, "b", 0.6, 2.0), _result(2, "c", 0.5, 3.0)):
        running.add(result)
    assert [point.digest for point in running.points()] == ["a"]
    running.add(_result(3, "a", 0.4, 1.0, kind="confirm"))
    assert [(point.digest, point.confirmed) for point in running.points()] == [("a", True), ("b", False)]
    running.add(_result(4, "b", math.nan, 2.0, kind="confirm", state="diverged"))
    assert [point.digest for point in running.points()] == ["a", "c"]


def test_a_front_needs_an_objective() -> None:
    with pytest.raises(SpecError, match="there is no objective"):
        RunningFront([])
