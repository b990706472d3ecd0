"""Comparison: every architecture of a search held against one of them, task by task, paired over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from archsearch.analysis.differences import holm, noise_of_differences, paired_difference
from archsearch.analysis.scores import LEVEL, Score, scores_of
from archsearch.analysis.speed import Timed, timed
from archsearch.arch import ModelSpec, whole_pattern
from archsearch.errors import ArchsearchError, SpecError, listing, nearest

if TYPE_CHECKING:
    from archsearch.registry import Registry
    from archsearch.storage import SearchRecord, Store, TrialRecord

LISTED = "architecture"
"""The parameter of a trial that holds the text by which a list asked for it."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One architecture: the trial that speaks for it, its pattern, costs by name, its scores by task, and by task how
    soon it learnt what full attention does, where that can be told.

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

    def ordered(self, task: str) -> list[Compared]:
        """The architectures that have a score on a task, the best first, those without a mean last."""
        rows = [row for row in self.rows if task in row.scores]
        sign = -1.0 if rows and rows[0].scores[task].direction == "maximize" else 1.0
        means = {row.digest: row.scores[task].mean for row in rows}
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
            "architectures": [
                {
                    "trial": row.trial,
                    "pattern": row.pattern,
                    "asked": row.asked,
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
    found = next((row for row in rows if names & {row.pattern, row.digest, row.asked}), None)
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
    begun = {trial.pattern for trial in trials} | {_asked(trial) for trial in trials}
    for text in _listed(search):
        if not begun & {text, _as_stored(text, trials[0].arch, registry)}:
            yield text, "not begun", ""


def _asked(trial: TrialRecord) -> str | None:
    """The text of a list that asked for a trial, None where none did."""
    asked = trial.params.get(LISTED) if isinstance(trial.params, Mapping) else None
    return asked if isinstance(asked, str) else None


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
        asked=_asked(trial) or trial.pattern,
        digest=trial.digest,
        costs=trial.costs,
        scores=scores_of((measured.task, measured.payload) for measured in trial.measurements),
    )


def judged(base: Compared, others: Sequence[Compared]) -> tuple[Compared, ...]:
    """The others with their differences from the baseline, and the chances of these corrected together."""
    pairs = [(row, task) for row in others for task in row.scores if task in base.scores]
    noise = {
        task: noise_of_differences(row.scores[task].values for row in (base, *others) if task in row.scores)
        for task in base.scores
    }
    found = [paired_difference(base.scores[task].whole, row.scores[task].whole, noise[task]) for row, task in pairs]
    chances = holm([chance for _, chance in found])
    told = {
        (row.digest, task): replace(row.scores[task], against=difference, p=chance)
        for (row, task), (difference, _), chance in zip(pairs, found, chances, strict=True)
    }
    return tuple(
        replace(row, scores={task: told.get((row.digest, task), score) for task, score in row.scores.items()})
        for row in others
    )
