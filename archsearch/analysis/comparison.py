"""Comparison: every architecture of a search held against one of them, metric by metric, paired over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from archsearch.analysis.asked_metrics import further_metrics
from archsearch.analysis.compared import Compared, Comparison
from archsearch.analysis.differences import holm, noise_of_differences, paired_difference
from archsearch.analysis.matching import MatchingTable
from archsearch.analysis.matching_record import asked_by, listed_in, read_whole, recorded_matching
from archsearch.analysis.objectives import Direction, objectives_of
from archsearch.analysis.scores import scores_of
from archsearch.analysis.speed import Timed, timed
from archsearch.errors import SpecError, listing, nearest

if TYPE_CHECKING:
    from archsearch.registry import Registry
    from archsearch.storage import SearchRecord, Store, TrialRecord


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
    whole = [store.trial(trial.id) for trial in trials if measured.get(trial.digest) is trial]
    further = _further(search, whole)
    rows = _rows(whole, further)
    if not rows:
        raise SpecError(f'"{name}" has no trial that is complete: wait for one, or `archsearch resume {name}`')
    base = _baseline(search, trials, rows, baseline, registry)
    others = judged(base, [row for row in rows if row is not base])
    known = {row.digest for row in rows}
    scored = _names(dict.fromkeys(score.task for row in rows for score in row.scores.values()), further)
    matching, not_told = _matching(search, trials, whole, registry)
    return Comparison(
        search=name,
        scored=tuple(one for one in scored if any(one in row.scores for row in rows)),
        untimed=tuple(one for one in scored if not any(one in row.scores for row in rows)),
        baseline=base,
        others=others,
        waiting=(
            *{trial.digest: _waiting(trial) for trial in trials if trial.digest not in known}.values(),
            *_not_begun(search, trials, registry),
        ),
        comparisons=sum(isfinite(score.p) for row in others for score in row.scores.values()),
        matching=matching,
        not_told=not_told,
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
        text = table.get("baseline") or next(iter(listed_in(search)), None)
    if text is None:
        references = {trial.digest for trial in trials if trial.kind == "reference"}
        return next((row for row in rows if row.digest in references), rows[0])
    names = _called(text, trials[0], registry)
    found = next((row for row in rows if names & {row.pattern, row.digest, row.asked}), None)
    if found is None:
        patterns = [row.pattern for row in rows]
        raise SpecError(
            f'"{text}" is none of the architectures that "{search.name}" has measured{nearest(text, patterns)}: '
            f"they are {listing(patterns)}: name one of them as --baseline"
        )
    return found


def _matching(
    search: SearchRecord, trials: Sequence[TrialRecord], measured: Sequence[TrialRecord], registry: Registry
) -> tuple[MatchingTable | None, str]:
    """How the architectures were matched, one trial of each, and why that is not known."""
    whole = {trial.digest: trial for trial in measured}
    found: dict[str, TrialRecord] = {}
    for trial in trials:
        known = found.setdefault(trial.digest, whole.get(trial.digest, trial))
        if asked_by(known) is None and asked_by(trial) is not None:  # a reference, which the list asks for too
            found[trial.digest] = replace(known, params=trial.params)
    try:
        return recorded_matching(search, list(found.values()), registry), ""
    except SpecError as error:
        return None, str(error)


def _waiting(trial: TrialRecord) -> tuple[str, str, str]:
    return trial.pattern, trial.state, trial.reason


def _not_begun(
    search: SearchRecord, trials: Sequence[TrialRecord], registry: Registry
) -> Iterator[tuple[str, str, str]]:
    """The architectures of a list that have no trial, as where the search was stopped before them."""
    begun = {trial.pattern for trial in trials} | {asked_by(trial) for trial in trials}
    for text in listed_in(search):
        if not begun & _called(text, trials[0], registry):
            yield text, "not begun", ""


def _called(text: str, trial: TrialRecord, registry: Registry) -> set[str]:
    """A pattern, and as trials on the backbone of `trial` carry it where it can be read: it may be the text of one."""
    arch = read_whole(text, trial.arch, registry)
    return {text} if arch is None else {text, arch.pattern(registry)}


def _further(search: SearchRecord, trials: Sequence[TrialRecord]) -> dict[str, dict[str, Direction]]:
    """What the objectives name of each task beside its primary metric."""
    primary = {found.task: str(found.payload["metric"]) for one in trials for found in one.measurements}
    return further_metrics(objectives_of(search), primary)


def _names(tasks: Iterable[str], further: Mapping[str, Mapping[str, Direction]]) -> Iterator[str]:
    for task in tasks:
        yield task
        yield from (f"{task}.{metric}" for metric in further.get(task, ()))


def _rows(trials: Sequence[TrialRecord], further: Mapping[str, Mapping[str, Direction]]) -> list[Compared]:
    runs = [(one.digest, one.arch, found.task, found.payload) for one in trials for found in one.measurements]
    speeds: dict[str, dict[str, Mapping[str, Timed]]] = {}
    for (digest, task), found in timed(runs).items():
        speeds.setdefault(digest, {})[task] = found
    return [_row(trial, further, speeds.get(trial.digest, {})) for trial in trials]


def _row(
    trial: TrialRecord,
    further: Mapping[str, Mapping[str, Direction]],
    speeds: Mapping[str, Mapping[str, Timed]],
) -> Compared:
    return Compared(
        speeds=speeds,
        trial=trial.id,
        pattern=trial.pattern,
        asked=asked_by(trial) or trial.pattern,
        digest=trial.digest,
        costs=trial.costs,
        scores=scores_of(((measured.task, measured.payload) for measured in trial.measurements), further, speeds),
    )


def judged(base: Compared, others: Sequence[Compared]) -> tuple[Compared, ...]:
    """The others with their differences from the baseline, and the chances of these corrected together."""
    pairs = [(row, name) for row in others for name in row.scores if name in base.scores]
    noise = {
        name: noise_of_differences(row.scores[name].values for row in (base, *others) if name in row.scores)
        for name in base.scores
    }
    found = [paired_difference(base.scores[name].whole, row.scores[name].whole, noise[name]) for row, name in pairs]
    chances = holm([chance for _, chance in found])
    told = {
        (row.digest, name): replace(row.scores[name], against=difference, p=chance)
        for (row, name), (difference, _), chance in zip(pairs, found, chances, strict=True)
    }
    return tuple(
        replace(row, scores={name: told.get((row.digest, name), score) for name, score in row.scores.items()})
        for row in others
    )
