"""The ladder as it stands: its rungs, what was carried up, and how far each rung could be trusted for the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, nan, sqrt
from statistics import fmean
from typing import Any

from archsearch.analysis.agreement import Agreement, BySeed, Move, agreement, moves, noise_of
from archsearch.analysis.power_law import LawCrossing, Point, PowerLaw, law_crossings, power_law
from archsearch.analysis.speed import SHARES

SEVERAL = "it is of several tasks, whose FLOPs are not one training's"
TIME = "it says how soon a model learns, which is no loss"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Something measured that rungs are compared by; ``task`` is "" for a composite of several tasks."""

    name: str
    direction: str
    task: str = ""

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"

    @property
    def why_no_loss(self) -> str:
        """Why no law of it is fitted on any architecture, "" where one may be."""
        if not self.task:
            return SEVERAL
        return TIME if self.name.rpartition(".")[2] in SHARES else ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One architecture on one rung: ``key`` is its digest on the first rung, by which it is known on all of them.

    ``scores`` are values on test by metric and seed, whole ones alone; ``flops`` training FLOPs of one run by task;
    ``trainings`` the keys of its measurements by task and seed: of equal ones two rungs have one training.
    """

    key: str
    pattern: str
    why: str
    trial: int | None
    state: str
    scores: Mapping[str, BySeed] = field(default_factory=dict)
    flops: Mapping[str, float] = field(default_factory=dict)
    trainings: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def again(self, other: Standing, task: str) -> set[int]:
        """The seeds of which another rung has the trainings of a task too, or of all tasks where it is ""."""
        tasks = {name: keys for name, keys in self.trainings.items() if task in ("", name)}
        new = {
            seed
            for name, keys in tasks.items()
            for seed, key in keys.items()
            if other.trainings.get(name, {}).get(seed) != key
        }
        return {seed for keys in tasks.values() for seed in keys} - new


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung: the search that it is, its sizes, those that are on it and on a rung beside it, and what was left.

    ``without_noise`` are measured objectives of which no candidate had two seeds that differ when the rung above was
    chosen, and ``late`` counts candidates that were measured on it after the rung above was begun: they had no chance.
    """

    number: int
    search: str
    state: str
    sizes: Mapping[str, Any]
    standings: tuple[Standing, ...]
    left: Mapping[str, str]
    without_noise: tuple[str, ...] = ()
    late: int = 0


@dataclass(frozen=True, kw_only=True)
class StepUp:
    """What one rung says of the next, in one metric: agreement is that with trainings that the lower one has not,
    ``again`` whether the upper one has others too."""

    below: int
    above: int
    metric: Metric
    agreement: Agreement
    moves: tuple[Move, ...]
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All rungs that were begun, the search first; ``planned`` counts those of the spec, it included."""

    name: str
    planned: int
    rungs: tuple[Rung, ...]
    metrics: tuple[Metric, ...]

    @cached_property
    def labels(self) -> dict[str, str]:
        """The pattern of each architecture on the lowest rung that it is on, by key."""
        found: dict[str, str] = {}
        for rung in self.rungs:
            for one in rung.standings:
                found.setdefault(one.key, one.pattern)
        return found

    @cached_property
    def steps(self) -> tuple[StepUp, ...]:
        """Each step up in each metric."""
        return tuple(_steps(self))

    def laws(self, metric: Metric) -> Mapping[str, PowerLaw | str]:
        """The power law of each architecture of the highest rung that is measured, or why there is none."""
        return self._laws[metric.name]

    @cached_property
    def _laws(self) -> dict[str, dict[str, PowerLaw | str]]:
        return {
            metric.name: {key: metric.why_no_loss or power_law(list(self._points(key, metric))) for key in self._on_top}
            for metric in self.metrics
        }

    @property
    def _on_top(self) -> list[str]:
        top = next((rung for rung in reversed(self.rungs) if any(one.scores for one in rung.standings)), None)
        return [one.key for one in top.standings if one.scores] if top is not None else []

    def _points(self, key: str, metric: Metric) -> Iterator[Point]:
        for rung in self.rungs:
            noise = noise_of([one.scores[metric.name] for one in rung.standings if metric.name in one.scores])
            for one in rung.standings:
                if one.key == key and metric.name in one.scores and metric.task in one.flops:
                    values = list(one.scores[metric.name].values())
                    mean = fmean(values)
                    error = noise.deviation / sqrt(len(values)) if noise.freedom else nan
                    loss = 1.0 - mean if metric.maximize else mean
                    yield Point(flops=one.flops[metric.task], loss=loss, error=error, freedom=noise.freedom or inf)

    def crossings(self, metric: Metric) -> list[LawCrossing]:
        """Where fitted laws cross."""
        return law_crossings({key: law for key, law in self.laws(metric).items() if isinstance(law, PowerLaw)})


def _steps(ladder: Ladder) -> Iterator[StepUp]:
    for below, above in zip(ladder.rungs, ladder.rungs[1:], strict=False):
        for metric in ladder.metrics:
            scores = [
                {one.key: one.scores[metric.name] for one in rung.standings if metric.name in one.scores}
                for rung in (below, above)
            ]
            known = {one.key: one for one in below.standings}
            again = {one.key: one.again(known[one.key], metric.task) for one in above.standings if one.key in known}
            new = {
                key: {seed: value for seed, value in values.items() if seed not in again.get(key, ())}
                for key, values in scores[1].items()
            }
            both = [key for key in scores[0] if new.get(key)]
            yield StepUp(
                below=below.number,
                above=above.number,
                metric=metric,
                agreement=agreement([scores[0][key] for key in both], [new[key] for key in both]),
                moves=tuple(moves(scores[0], scores[1], maximize=metric.maximize)),
                again=any(new[key] != scores[1][key] for key in new),
            )
