"""The running front of a search: kept up to date trial by trial, without looking at all trials again."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from archsearch.analysis.objectives import Objectives, signs
from archsearch.analysis.points import rank

Losses = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a front needs to know of a trial: ``number`` counts within the search, ``values`` are means over its seeds
    by objective, NaN or absent where a seed has none."""

    trial: int
    number: int
    digest: str
    pattern: str
    kind: str
    state: str
    feasible: bool
    exercised: bool
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One candidate of a front: the trial that its values come from, those by objective, and whether fresh seeds gave
    them."""

    trial: int
    digest: str
    pattern: str
    values: Mapping[str, float]
    confirmed: bool


class NonDominated:
    """The keys whose losses no other key's dominate; less is better, and equal ones stand together.

    A key that comes in is compared with those that stand. Only when one of those gives way are all looked at.
    """

    def __init__(self) -> None:
        self._all: dict[Hashable, Losses] = {}
        self._standing: dict[Hashable, Losses] = {}

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._standing)

    def put(self, key: Hashable, losses: Sequence[float] | None) -> None:
        """Gives `key` its losses instead of those that it had; None, or a loss that is not finite, takes it out."""
        self._all.pop(key, None)
        before = self._standing.pop(key, None)
        if losses is not None and all(map(math.isfinite, losses)):
            self._all[key] = tuple(losses)
            self._let_in(key, self._all[key])
        if before is not None:
            for other, held in self._all.items():
                if dominates(before, held):
                    self._let_in(other, held)

    def _let_in(self, key: Hashable, losses: Losses) -> None:
        if any(dominates(held, losses) for held in self._standing.values()):
            return
        for beaten in [other for other, held in self._standing.items() if dominates(losses, held)]:
            del self._standing[beaten]
        self._standing[key] = losses


def dominates(one: Losses, other: Losses) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    return one != other and all(mine <= theirs for mine, theirs in zip(one, other, strict=True))


class RunningFront:
    """The front of the trials that were added, which is `front` of their `points`."""

    def __init__(self, objectives: Objectives) -> None:
        """Raises `SpecError` without an objective."""
        self._signs = dict(zip((item.name for item in objectives), signs(objectives).tolist(), strict=True))
        self._trials: dict[str, dict[int, TrialResult]] = {}
        self._best = NonDominated()

    def add(self, result: TrialResult) -> None:
        """Takes a trial in, or what has become of one that is in."""
        trials = self._trials.setdefault(result.digest, {})
        trials[result.trial] = result
        self._best.put(result.digest, self._losses(trials.values()))

    def points(self) -> list[FrontPoint]:
        """The points by the first objective that is minimised, as `front` has them."""
        found = [_point(_speaker(self._trials[str(digest)].values())) for digest in self._best]
        ordered = sorted(self._signs, key=lambda name: self._signs[name] < 0)
        return sorted(
            found, key=lambda point: (*(self._signs[name] * point.values[name] for name in ordered), point.trial)
        )

    def _losses(self, trials: Iterable[TrialResult]) -> Losses | None:
        """A candidate's losses, None where it may not stand on a front."""
        trials = list(trials)
        speaker, newest = _speaker(trials), max(trials, key=lambda trial: trial.number)
        if speaker.state != "complete" or not newest.feasible or not all(trial.exercised for trial in trials):
            return None
        return tuple(sign * speaker.values.get(name, math.nan) for name, sign in self._signs.items())


def _speaker(trials: Iterable[TrialResult]) -> TrialResult:
    """The trial of a candidate that its values come from."""
    return max(trials, key=lambda trial: (rank(trial.kind, trial.state), trial.number))


def _point(speaker: TrialResult) -> FrontPoint:
    return FrontPoint(
        trial=speaker.trial,
        digest=speaker.digest,
        pattern=speaker.pattern,
        values=dict(speaker.values),
        confirmed=speaker.kind == "confirm",
    )
