"""A comparison as plain data: the architectures with their scores, and the one that they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from archsearch.analysis.matching import MatchingTable
from archsearch.analysis.scores import LEVEL, Score
from archsearch.analysis.speed import Timed


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One architecture: the trial that speaks for it, its pattern, costs by name, its scores by `Score.name`, and by
    task how soon it learnt what full attention does, where that can be told.

    ``asked`` is the pattern by which a list asked for it, which differs from its own where it was matched to a
    baseline.
    """

    trial: int
    pattern: str
    digest: str
    costs: Mapping[str, float]
    scores: Mapping[str, Score]
    speeds: Mapping[str, Mapping[str, Timed]] = field(default_factory=dict)
    asked: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``tasks`` has the primary metric of each, ``metrics`` what the objectives name beside those."""
        return {
            "trial": self.trial,
            "pattern": self.pattern,
            "asked": self.asked,
            "digest": self.digest,
            "costs": dict(self.costs),
            "tasks": {name: _score_json(score) for name, score in self.scores.items() if score.primary},
            "metrics": {name: _score_json(score) for name, score in self.scores.items() if not score.primary},
            "speeds": {
                task: {metric: found.to_json() for metric, found in by_metric.items()}
                for task, by_metric in self.speeds.items()
            },
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All architectures that are measured, the baseline first, then as they were drawn; ``waiting`` has the patterns of
    those that are not, each with its state and reason, and those of a list that were not begun.

    ``scored`` has the names of what is compared: of every task its primary metric, by the task's name, then what the
    search's objectives name of it beside that. ``untimed`` are those of speed of which no score is known.
    ``comparisons`` is the number of those that ``p`` is corrected for: of every architecture but the baseline, on all
    of ``scored``. ``matching`` is how the architectures of the list were made equal, where they were, and ``not_told``
    why that is not known."""

    search: str
    scored: tuple[str, ...]
    untimed: tuple[str, ...]
    baseline: Compared
    others: tuple[Compared, ...]
    waiting: tuple[tuple[str, str, str], ...]
    comparisons: int
    matching: MatchingTable | None = None
    not_told: str = ""

    @property
    def rows(self) -> tuple[Compared, ...]:
        """The baseline and the others."""
        return (self.baseline, *self.others)

    def score(self, name: str) -> Score:
        """A score of that name, whose task, metric and direction are those of all; raises `KeyError` for another."""
        return next(row.scores[name] for row in self.rows if name in row.scores)

    def ordered(self, name: str) -> list[Compared]:
        """The architectures that have a score of that name, the best first, those without a mean last."""
        rows = [row for row in self.rows if name in row.scores]
        sign = -1.0 if rows and rows[0].scores[name].direction == "maximize" else 1.0
        means = {row.digest: row.scores[name].mean for row in rows}
        unknown = {digest for digest, mean in means.items() if not isfinite(mean)}
        return sorted(
            rows, key=lambda row: (row.digest in unknown, 0.0 if row.digest in unknown else sign * means[row.digest])
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "search": self.search,
            "baseline": self.baseline.pattern,
            "comparisons": self.comparisons,
            "level": LEVEL,
            "scored": list(self.scored),
            "architectures": [row.to_json() for row in self.rows],
            "waiting": [dict(zip(("pattern", "state", "reason"), one, strict=True)) for one in self.waiting],
            "matching": None if self.matching is None else self.matching.to_json(),
        }


def _score_json(score: Score) -> dict[str, Any]:
    return {**asdict(score), "clear": score.against is not None and score.clear}
