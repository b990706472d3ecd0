"""Matching of a stored comparison, from what its trials say that they were trained as."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsearch.analysis.matching import MATCHED, MATCHED_COSTS, MatchedRow, MatchingTable
from archsearch.arch import ArchSpec, ModelSpec, whole_pattern
from archsearch.costs import CostModel, CostTerm
from archsearch.errors import ArchsearchError, SpecError
from archsearch.recipe import Recipe

if TYPE_CHECKING:
    from archsearch.registry import Registry
    from archsearch.storage import SearchRecord, TrialRecord

LISTED = "architecture"
"""The parameter of a trial that holds the text by which a list asked for it."""


def asked_by(trial: TrialRecord) -> str | None:
    """The text of a list that asked for a trial, None where none did."""
    found = trial.params.get(LISTED) if isinstance(trial.params, Mapping) else None
    return found if isinstance(found, str) else None


def listed_in(search: SearchRecord) -> list[str]:
    """The patterns of a search's list, none where it has no list."""
    space = search.spec.get("space")
    found = space.get("architectures") if isinstance(space, Mapping) else None
    return [str(text) for text in found] if isinstance(found, list | tuple) else []


def read_whole(text: str, arch: Mapping[str, Any], registry: Registry) -> ArchSpec | None:
    """A pattern on the backbone of a stored architecture, whose single layer is repeated as often as that has layers;
    None where it cannot be read here, as one of a plugin that is not installed."""
    try:
        return whole_pattern(text, ModelSpec.read(arch["model"]), len(arch["layers"]), registry)
    except ArchsearchError:
        return None


def recorded_matching(search: SearchRecord, trials: Sequence[TrialRecord], registry: Registry) -> MatchingTable | None:
    """How the architectures of a comparison were matched, each as its trial has it; those that were not begun are left
    out. `trials` are one an architecture, with their measurements where FLOPs were matched.

    None where nothing was matched. Raises `SpecError` where that cannot be told: while the baseline's training is not
    stored by which FLOPs were matched, or where its plugin is not installed.
    """
    compare = search.spec.get("compare")
    match = str(compare.get("match")) if isinstance(compare, Mapping) else ""
    if match not in MATCHED or not isinstance(compare, Mapping) or not trials:
        return None
    reader = _Flops(search, trials) if match == "train_flops" else _Costs(search, match, registry)
    text = str(compare.get("baseline") or next(iter(listed_in(search)), ""))
    whole = read_whole(text, trials[0].arch, registry)
    names = {text, whole.pattern(registry)} if whole is not None else {text}
    base = next((one for one in trials if names & {one.pattern, asked_by(one)}), None)
    target = None if base is None else reader.after(base)
    if base is None or not target:
        raise SpecError(
            f'how the architectures were matched (compare.match = "{match}") is told once {text}, to which they were, '
            "is measured"
        )
    return MatchingTable(
        match=match,
        baseline=base.pattern,
        context=_context(search),
        target=target,
        unit=reader.unit,
        rows=tuple(
            MatchedRow(
                asked=asked_by(one) or one.pattern,
                pattern=one.pattern,
                digest=one.digest,
                before=reader.before(one),
                after=reader.after(one),
                steps=reader.steps(one),
            )
            for one in trials
            if one is base or reader.matches(one)
        ),
    )


def _context(search: SearchRecord) -> int:
    objectives = search.spec.get("objectives")
    found = objectives.get("context") if isinstance(objectives, Mapping) else None
    return found if isinstance(found, int) and found > 0 else 1


class _Costs:
    """A cost of the architecture alone, which trials carry."""

    def __init__(self, search: SearchRecord, match: str, registry: Registry) -> None:
        self._term = CostTerm(measure=MATCHED_COSTS[match], context=_context(search))
        self._registry, self._costs = registry, CostModel(registry)
        self.unit = self._term.unit

    def matches(self, trial: TrialRecord) -> bool:
        return asked_by(trial) is not None

    def after(self, trial: TrialRecord) -> float | None:
        known = trial.costs.get(str(self._term))
        return known if known is not None else self._of(_read(trial.arch, self._registry))

    def before(self, trial: TrialRecord) -> float | None:
        return self._of(read_whole(asked_by(trial) or trial.pattern, trial.arch, self._registry))

    def _of(self, arch: ArchSpec | None) -> float | None:
        if arch is None:
            return None
        try:
            return self._costs.cost(arch, self._term.context).measure(self._term.measure)
        except ArchsearchError:  # of a version whose costs refuse what was trained
            return None

    def steps(self, trial: TrialRecord) -> dict[str, int]:
        return {}


class _Flops:
    """FLOPs of one training of each task, by the recipes and costs of the measurements. A reference is matched too."""

    unit = "FLOP"

    def __init__(self, search: SearchRecord, trials: Sequence[TrialRecord]) -> None:
        self._recipe = Recipe.read(search.spec.get("recipe") or {})
        self._tasks = {found.task for one in trials for found in one.measurements}

    def matches(self, trial: TrialRecord) -> bool:
        return self.after(trial) is not None

    def after(self, trial: TrialRecord) -> float | None:
        return self._total(trial, lambda payload: Recipe.read(payload["recipe"]))

    def before(self, trial: TrialRecord) -> float | None:
        return self._total(trial, lambda payload: self._recipe)

    def steps(self, trial: TrialRecord) -> dict[str, int]:
        return {task: Recipe.read(one["recipe"]).steps_for(one["seq_len"]) for task, one in _runs(trial)}

    def _total(self, trial: TrialRecord, recipe_of: Callable[[Mapping[str, Any]], Recipe]) -> float | None:
        runs = dict(_runs(trial))
        if runs.keys() != self._tasks:
            return None
        total = 0.0
        for payload in runs.values():
            recipe = recipe_of(payload)
            total += float(payload["costs"]["train_flops"]) * recipe.steps_for(payload["seq_len"]) * recipe.batch_size
        return total


def _runs(trial: TrialRecord) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The first run of each task that says by what recipe it was trained, and what a sequence costs."""
    seen = set()
    for measured in trial.measurements:
        payload = measured.payload
        costs = payload.get("costs")
        each = costs.get("train_flops") if isinstance(costs, Mapping) else None
        if measured.task not in seen and payload.get("recipe") and payload.get("seq_len") and each:
            seen.add(measured.task)
            yield measured.task, payload


def _read(arch: Mapping[str, Any], registry: Registry) -> ArchSpec | None:
    try:
        return ArchSpec.from_json(arch, registry)
    except ArchsearchError:
        return None
