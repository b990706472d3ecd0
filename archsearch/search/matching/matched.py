"""Matching: the architectures of a comparison, each given as much of something as the baseline has, by costs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from archsearch.analysis.matching import MATCHED_COSTS, MatchedRow, MatchingTable
from archsearch.arch import ArchSpec, whole_pattern
from archsearch.costs import CostModel, CostTerm
from archsearch.errors import ArchsearchError, SpecError
from archsearch.notation import parse_written
from archsearch.registry import Registry
from archsearch.search.matching.sizes import StateReads
from archsearch.search.matching.state import STATE_TOLERANCE, match_state, why_apart
from archsearch.search.matching.steps import FLOPS_TOLERANCE, match_steps, run_flops
from archsearch.search.matching.width import PARAMS_TOLERANCE, match_params
from archsearch.search.patterns import Listed
from archsearch.search.space import Space
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.compare import Match
from archsearch.tasks import Task
from archsearch.units import format_quantity

TOLERANCES: Mapping[Match, float] = {"params": PARAMS_TOLERANCE, "state_read": STATE_TOLERANCE}


@dataclass(frozen=True, kw_only=True)
class Matched:
    """An architecture of the list: the pattern that asked for it, as it stands there, and as it was made.

    ``before`` and ``after`` are its figure: parameters, bytes read, or FLOPs of one training of each task at one
    learning rate. ``steps`` has the optimiser steps of each task where they are what was matched.
    """

    text: str
    asked: ArchSpec
    arch: ArchSpec
    before: float
    after: float
    steps: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What was made equal, at ``context`` tokens where that matters, and how nearly: ``rows`` are in the list's order,
    and ``target`` is the baseline's figure, in ``unit``."""

    match: Match
    baseline: str
    context: int
    target: float
    unit: str
    rows: tuple[Matched, ...]

    def table(self, registry: Registry) -> MatchingTable:
        """As it is read."""
        rows = tuple(
            MatchedRow(
                asked=row.text,
                pattern=row.arch.pattern(registry),
                digest=row.arch.digest,
                before=row.before,
                after=row.after,
                steps=row.steps,
            )
            for row in self.rows
        )
        return MatchingTable(
            match=self.match,
            baseline=self.baseline,
            context=self.context,
            target=self.target,
            unit=self.unit,
            rows=rows,
        )


def cost_term(match: Match, context: int) -> CostTerm | None:
    """The cost that is made equal, None where that is none of an architecture alone."""
    return CostTerm(measure=MATCHED_COSTS[match], context=context) if match in MATCHED_COSTS else None


def matched(
    spec: SearchSpec, space: Space, baseline: ArchSpec, tasks: Mapping[str, Task], registry: Registry
) -> tuple[Space, Matching | None]:
    """The space whose listed architectures are matched to the baseline, and how; as it was for "tokens".

    Raises `SpecError` that names every architecture which cannot be matched, with the nearest that was found.
    """
    match = spec.compare.match if spec.compare is not None else "tokens"
    if match == "tokens":
        return space, None
    by = _By(spec=spec, match=match, baseline=baseline, tasks=tasks, registry=registry)
    rows, refused = [], []
    for text in spec.space.architectures:
        try:
            rows.append(by.row(text, whole_pattern(text, space.model, space.n_layers, registry)))
        except ArchsearchError as error:
            refused.append(f"{text}: {error}")
    if refused:
        raise SpecError(f'compare.match = "{match}", held against {by.name}: {"; ".join(refused)}')
    _refuse_twins(rows, match, registry)
    found = Matching(
        match=match,
        baseline=by.name,
        context=spec.objectives.context,
        target=by.target,
        unit="FLOP" if by.term is None else by.term.unit,
        rows=tuple(rows),
    )
    return replace(space, pattern=Listed({row.text: row.arch.layers for row in rows})), found


class _By:
    """One kind of matching, with the baseline's figure."""

    def __init__(
        self, *, spec: SearchSpec, match: Match, baseline: ArchSpec, tasks: Mapping[str, Task], registry: Registry
    ) -> None:
        if match == "train_flops" and spec.recipe.teacher is not None:
            raise SpecError(
                f'compare.match = "train_flops" with recipe.teacher = "{spec.recipe.teacher}", whose own FLOPs are not '
                "counted: leave one of them out"
            )
        self._spec, self._match, self._baseline, self._tasks, self._registry = spec, match, baseline, tasks, registry
        self._costs = CostModel(registry)
        self.term = cost_term(match, spec.objectives.context)
        self.name = baseline.pattern(registry)
        self._own_steps = {name: spec.recipe.steps_for(task.seq_len) for name, task in tasks.items()}
        self.target = self._figure(baseline, self._own_steps)
        if not self.target > 0:
            raise SpecError(f'compare.match = "{match}": {self.name} reads no state: name another compare.baseline')

    def _figure(self, arch: ArchSpec, steps: Mapping[str, int]) -> float:
        if self.term is not None:
            return self._costs.cost(arch, self.term.context).measure(self.term.measure)
        return run_flops(arch, steps, self._tasks, self._spec.recipe, self._costs)

    def row(self, text: str, asked: ArchSpec) -> Matched:
        """One architecture, as asked and as matched; raises `SpecError` where it is too far from the baseline."""
        arch, steps = asked, self._own_steps
        if asked != self._baseline:
            if self._match == "train_flops":
                steps = match_steps(asked, self._baseline, self._tasks, self._spec.recipe, self._costs)
            else:
                arch = self._changed(text, asked)
        told = steps if self._match == "train_flops" else {}
        before, after = self._figure(asked, self._own_steps), self._figure(arch, steps)
        if self._match == "train_flops":
            self._check_flops(after, steps)
        return Matched(text=text, asked=asked, arch=arch, before=before, after=after, steps=told)

    def _check_flops(self, has: float, steps: Mapping[str, int]) -> None:
        """Raises `SpecError` where whole steps are too coarse to come near the baseline's FLOPs."""
        if abs(has - self.target) > FLOPS_TOLERANCE * self.target:
            told = ", ".join(f"{count} of {name}" for name, count in steps.items())
            raise SpecError(
                f"the nearest whole steps, {told}, are {has / self.target - 1.0:+.1%} from the FLOPs of the "
                f"baseline, and {FLOPS_TOLERANCE:.0%} count as equal: take more steps (recipe.steps or recipe.tokens)"
            )

    def _changed(self, text: str, asked: ArchSpec) -> ArchSpec:
        layers = parse_written(text, self._registry)
        layers *= len(asked.layers) // len(layers)
        reads = StateReads(registry=self._registry, costs=self._costs, context=self._spec.objectives.context)
        written = [names for _, names in layers]
        if self._match == "state_read":
            arch = match_state(asked, written, self.target, reads)
        else:
            arch = match_params(asked, [layer.ffn_dim is not None for layer, _ in layers], self.target, self._costs)
        tolerance, has = TOLERANCES[self._match], self._figure(arch, {})
        if abs(has - self.target) <= tolerance * self.target:
            return arch
        assert self.term is not None
        shown, wanted = (format_quantity(value, unit=self.term.unit) for value in (has, self.target))
        if self._match == "params":
            raise SpecError(
                f"the nearest found, {arch.pattern(self._registry)}, has {shown} parameters of {wanted}, "
                f"{has / self.target - 1.0:+.1%}, and {tolerance:.0%} count as equal: write its widths out, or leave "
                "it out of space.architectures"
            )
        raise SpecError(
            f"{why_apart(asked, arch, written, reads)} reads {shown} of state a token at {self.term.context} tokens, "
            f"not {wanted} ({has / self.target - 1.0:+.1%}, and {tolerance:.0%} count as equal): leave it out of "
            "space.architectures, or change the baseline's sizes or objectives.context"
        )


def _refuse_twins(rows: list[Matched], match: Match, registry: Registry) -> None:
    by_digest: dict[str, Matched] = {}
    for row in rows:
        twin = by_digest.setdefault(row.arch.digest, row)
        if twin is not row:
            raise SpecError(
                f'compare.match = "{match}": "{row.text}" and "{twin.text}" both become '
                f"{row.arch.pattern(registry)}: drop one of them"
            )
