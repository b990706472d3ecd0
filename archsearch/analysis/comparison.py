"""Comparison: every architecture of a search held against one of them, task by task, paired over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, nan, sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from archsearch.analysis.differences import Difference, holm, paired_difference, paired_noise
from archsearch.analysis.speed import Timed, timed
from archsearch.arch import ModelSpec, whole_pattern
from archsearch.errors import ArchsearchError, SpecError, listing, nearest

if TYPE_CHECKING:
    from archsearch.registry import Registry
    from archsearch.storage import SearchRecord, Store, TrialRecord

LEVEL = 0.05
"""A difference is told as one where chance alone makes as large a one in any of the comparisons less often than so."""

KEPT = 0.5
"""An architecture is fragile where every other learning rate keeps less than so much of what the best one gains."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What learning rates made of an architecture on a task: the mean on validation over seeds by rate, the best rate,
    whether it is the lowest or the highest of several, and whether it stands alone."""

    means: Mapping[float, float]
    best: float | None
    at_end: Literal["", "lowest", "highest"]
    fragile: bool


@dataclass(frozen=True, kw_only=True)
class Score:
    """One architecture on one task: the primary metric on test by seed, its mean and standard error, and what the mean
    is above the baseline's (None for the baseline itself).

    ``p`` is the chance of so large a difference without any, corrected for the number of comparisons (Holm); NaN where
    nothing tells. ``diverged`` are seeds of which no rate gave a model: they leave no mean.
    """

    task: str
    metric: str
    direction: str
    values: Mapping[int, float]
    mean: float
    error: float
    diverged: tuple[int, ...]
    against: Difference | None
    p: float
    rates: Rates

    @property
    def clear(self) -> bool:
        """Whether the difference is larger than its noise."""
        return self.p < LEVEL

    @property
    def better(self) -> bool:
        """Whether it is clear, and the right way."""
        assert self.against is not None
        return self.clear and (self.against.mean > 0) == (self.direction == "maximize")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One architecture: the trial that speaks for it, its pattern, costs by name, its scores by task, and by task how
    soon it learnt what full attention does, where that can be told."""

    trial: int
    pattern: str
    digest: str
    costs: Mapping[str, float]
    scores: Mapping[str, Score]
    speeds: Mapping[str, Mapping[str, Timed]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All architectures that are measured, the baseline first, then as they were drawn; ``waiting`` has the patterns of
    those that are not, each with its state and reason, and those of a list that were not begun.
    ``comparisons`` is the number of those that ``p`` is corrected for."""

    search: str
    tasks: tuple[str, ...]
    baseline: Compared
    others: tuple[Compared, ...]
    waiting: tuple[tuple[str, str, str], ...]
    comparisons: int

    @property
    def rows(self) -> tuple[Compared, ...]:
        """The baseline and the others."""
        return (self.baseline, *self.others)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "search": self.search,
            "baseline": self.baseline.pattern,
            "comparisons": self.comparisons,
            "level": LEVEL,
            "architectures": [
                {
                    "trial": row.trial,
                    "pattern": row.pattern,
                    "digest": row.digest,
                    "costs": dict(row.costs),
                    "tasks": {
                        task: {**asdict(score), "clear": score.against is not None and score.clear}
                        for task, score in row.scores.items()
                    },
                    "speeds": {
                        task: {metric: found.to_json() for metric, found in by_metric.items()}
                        for task, by_metric in row.speeds.items()
                    },
                }
                for row in self.rows
            ],
            "waiting": [dict(zip(("pattern", "state", "reason"), one, strict=True)) for one in self.waiting],
        }


def compare(store: Store, name: str, registry: Registry, baseline: str | None = None) -> Comparison:
    """The comparison of a search's candidates and references with `baseline`, a pattern; by default the one that the
    search's ``[compare]`` names or the first of its list, in a search without one the first reference that is measured,
    else the first candidate.

    Raises `SpecError` where the baseline is none of them, or nothing is measured yet, and `StorageError` for a search
    that there is not.
    """
    search = store.search(name)
    trials = [trial for trial in store.trials(search.id) if trial.kind != "confirm" and trial.state != "superseded"]
    measured = {trial.digest: trial for trial in reversed(trials) if trial.state in ("complete", "diverged")}
    rows = _rows([store.trial(trial.id) for trial in trials if measured.get(trial.digest) is trial])
    if not rows:
        raise SpecError(f'"{name}" has no trial that is complete: wait for one, or `archsearch resume {name}`')
    base = _baseline(search, trials, rows, baseline, registry)
    others = judged(base, [row for row in rows if row is not base])
    known = {row.digest for row in rows}
    return Comparison(
        search=name,
        tasks=tuple(dict.fromkeys(task for row in rows for task in row.scores)),
        baseline=base,
        others=others,
        waiting=(
            *{trial.digest: _waiting(trial) for trial in trials if trial.digest not in known}.values(),
            *_not_begun(search, trials, registry),
        ),
        comparisons=sum(isfinite(score.p) for row in others for score in row.scores.values()),
    )


def _baseline(
    search: SearchRecord,
    trials: Sequence[TrialRecord],
    rows: Sequence[Compared],
    wanted: str | None,
    registry: Registry,
) -> Compared:
    table = search.spec.get("compare")
    text = wanted
    if text is None and isinstance(table, Mapping):
        text = table.get("baseline") or next(iter(_listed(search)), None)
    if text is None:
        references = {trial.digest for trial in trials if trial.kind == "reference"}
        return next((row for row in rows if row.digest in references), rows[0])
    names = {text, _as_stored(text, trials[0].arch, registry)}
    found = next((row for row in rows if names & {row.pattern, row.digest}), None)
    if found is None:
        patterns = [row.pattern for row in rows]
        raise SpecError(
            f'"{text}" is none of the architectures that "{search.name}" has measured{nearest(text, patterns)}: '
            f"they are {listing(patterns)}: name one of them as --baseline"
        )
    return found


def _waiting(trial: TrialRecord) -> tuple[str, str, str]:
    return trial.pattern, trial.state, trial.reason


def _not_begun(
    search: SearchRecord, trials: Sequence[TrialRecord], registry: Registry
) -> Iterator[tuple[str, str, str]]:
    """The architectures of a list that have no trial, as where the search was stopped before them."""
    begun = {trial.pattern for trial in trials}
    for text in _listed(search):
        if _as_stored(text, trials[0].arch, registry) not in begun:
            yield text, "not begun", ""


def _listed(search: SearchRecord) -> list[str]:
    space = search.spec.get("space")
    listed = space.get("architectures") if isinstance(space, Mapping) else None
    return [str(text) for text in listed] if isinstance(listed, list | tuple) else []


def _as_stored(text: str, arch: Mapping[str, Any], registry: Registry) -> str:
    """A pattern as trials carry it, whose single layer is repeated as often as `arch` has layers."""
    try:
        return whole_pattern(text, ModelSpec.read(arch["model"]), len(arch["layers"]), registry).pattern(registry)
    except ArchsearchError:  # none that can be read here: it may still be the text of one
        return text


def _rows(trials: Sequence[TrialRecord]) -> list[Compared]:
    runs = [(one.digest, one.arch, found.task, found.payload) for one in trials for found in one.measurements]
    speeds: dict[str, dict[str, Mapping[str, Timed]]] = {}
    for (digest, task), found in timed(runs).items():
        speeds.setdefault(digest, {})[task] = found
    return [_row(trial, speeds.get(trial.digest, {})) for trial in trials]


def _row(trial: TrialRecord, speeds: Mapping[str, Mapping[str, Timed]]) -> Compared:
    return Compared(
        speeds=speeds,
        trial=trial.id,
        pattern=trial.pattern,
        digest=trial.digest,
        costs=trial.costs,
        scores=scores_of((measured.task, measured.payload) for measured in trial.measurements),
    )


def scores_of(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Score]:
    """The scores of one architecture by task, from its runs: each task and `Measurement.to_json()`, one a seed."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for task, payload in runs:
        by_task.setdefault(task, []).append(payload)
    return {task: _score(task, payloads) for task, payloads in by_task.items()}


def _score(task: str, payloads: Sequence[Mapping[str, Any]]) -> Score:
    metric, direction, chance = (payloads[0][key] for key in ("metric", "direction", "chance"))
    values = {int(one["seed"]): _number(one["test"].get(metric)) for one in payloads if one["status"] == "complete"}
    diverged = tuple(int(one["seed"]) for one in payloads if one["status"] != "complete")
    known = list(values.values())
    whole = bool(known) and not diverged and all(map(isfinite, known))
    return Score(
        task=task,
        metric=metric,
        direction=direction,
        values=values,
        mean=fmean(known) if whole else nan,
        error=stdev(known) / sqrt(len(known)) if whole and len(known) > 1 else nan,
        diverged=diverged,
        against=None,
        p=nan,
        rates=_rates(payloads, metric, direction, chance),
    )


def _rates(payloads: Sequence[Mapping[str, Any]], metric: str, direction: str, chance: float) -> Rates:
    by_rate: dict[float, list[float]] = {}
    for payload in payloads:
        for entry in payload["sweep"]:
            by_rate.setdefault(entry["learning_rate"], []).append(_number(entry["validation"].get(metric)))
    means = {rate: fmean(by_rate[rate]) for rate in sorted(by_rate)}
    finite = {rate: mean for rate, mean in means.items() if isfinite(mean)}
    if not finite:
        return Rates(means=means, best=None, at_end="", fragile=False)
    best = (max if direction == "maximize" else min)(finite, key=lambda rate: finite[rate])
    rates = list(means)
    at_end: Literal["", "lowest", "highest"] = ""
    if len(rates) > 1 and best in (rates[0], rates[-1]):
        at_end = "lowest" if best == rates[0] else "highest"
    sign = 1.0 if direction == "maximize" else -1.0
    gains = [sign * (finite[rate] - chance) if rate in finite else 0.0 for rate in rates if rate != best]
    fragile = bool(gains) and max(0.0, *gains) < KEPT * sign * (finite[best] - chance)
    return Rates(means=means, best=best, at_end=at_end, fragile=fragile)


def _number(value: Any) -> float:
    return nan if value is None else float(value)


def judged(base: Compared, others: Sequence[Compared]) -> tuple[Compared, ...]:
    """The others with their differences from the baseline, and the chances of these corrected together."""
    pairs = [(row, task) for row in others for task in row.scores if task in base.scores]
    noise = {
        task: paired_noise(score.values, [row.scores[task].values for row in others if task in row.scores])
        for task, score in base.scores.items()
    }
    found = [
        paired_difference(_whole_values(base.scores[task]), _whole_values(row.scores[task]), noise[task])
        for row, task in pairs
    ]
    chances = holm([chance for _, chance in found])
    told = {
        (row.digest, task): replace(row.scores[task], against=difference, p=chance)
        for (row, task), (difference, _), chance in zip(pairs, found, chances, strict=True)
    }
    return tuple(
        replace(row, scores={task: told.get((row.digest, task), score) for task, score in row.scores.items()})
        for row in others
    )


def _whole_values(score: Score) -> Mapping[int, float]:
    """None where a seed diverged: the mean of the others would flatter."""
    return {} if score.diverged else score.values
