"""The survey of a space before anything is trained: how many candidates, and how hard the budget bites."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from archsearch.arch import ArchSpec
from archsearch.errors import NothingFeasibleError
from archsearch.registry import Registry
from archsearch.search.problem import Problem, Verdict

SAMPLE = 2000
"""Candidates that are judged: all of a space that has no more, else as many drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Tightest:
    """The candidate closest to the budget that was seen, and what it still exceeds."""

    pattern: str
    text: str
    excess: float


@dataclass(frozen=True, kw_only=True)
class Survey:
    """``judged`` candidates of ``candidates`` in all: how many are trainable, over budget, or not exercised.

    ``exhaustive`` says that every candidate was judged; ``tightest`` is None when one meets the budget.
    """

    candidates: int
    judged: int
    trainable: int
    over_budget: int
    unexercised: int
    exhaustive: bool
    tightest: Tightest | None

    @property
    def within_budget(self) -> float:
        """Share of the judged candidates that meet the budget."""
        return 1.0 - self.over_budget / self.judged


def survey(problem: Problem, *, sample: int = SAMPLE) -> Survey:
    """Judges every candidate of a small space, random ones of a large one; equal problems give equal surveys."""
    count = problem.space.count()
    exhaustive = count <= sample
    rng = random.Random(problem.spec.seed)
    drawn: Iterable[ArchSpec] = (
        problem.space.all() if exhaustive else (problem.space.random(rng) for _ in range(sample))
    )
    judged = [(arch, problem.judge(arch)) for arch in drawn]
    over = [(arch, verdict) for arch, verdict in judged if verdict.over_budget]
    return Survey(
        candidates=count,
        judged=len(judged),
        trainable=sum(verdict.trainable for _, verdict in judged),
        over_budget=len(over),
        unexercised=sum(bool(verdict.unexercised) for _, verdict in judged),
        exhaustive=exhaustive,
        tightest=tightest(over, problem.registry) if len(over) == len(judged) else None,
    )


def tightest(candidates: Iterable[tuple[ArchSpec, Verdict]], registry: Registry) -> Tightest:
    """Of candidates that are over budget, the one whose largest excess is least."""
    arch, verdict = min(candidates, key=lambda pair: worst_excess(pair[1]))
    worst = max(verdict.violations, key=lambda violation: violation.excess)
    return Tightest(pattern=arch.pattern(registry), text=str(worst), excess=worst.excess)


def worst_excess(verdict: Verdict) -> float:
    """The largest excess over a limit; 0 and less is within budget."""
    return max(verdict.slack.values(), default=0.0)


def nothing_feasible(problem: Problem, judged: int, nearest: Tightest | None) -> NothingFeasibleError:
    """The error for a space of which no candidate can be trained, with the tightest figure seen."""
    if nearest is not None:
        return NothingFeasibleError(
            f"none of {judged} candidates meets the budget: the tightest, {nearest.pattern}, has {nearest.text}: "
            "raise [budget], or offer cheaper mixers in [space]"
        )
    lengths = sorted({task.seq_len for task in problem.tasks.values()})
    layers = (layer for entry in problem.space.entries.values() for layer in entry.layers)
    archs = (ArchSpec(model=problem.space.model, layers=(layer,)) for layer in layers)
    seen = next((str(found) for arch in archs for found in problem.judge(arch).unexercised), None)
    refused = _refusal(problem) if seen is None else None
    if refused is not None:
        return NothingFeasibleError(
            f"none of {judged} candidates can be trained: their layers cannot stand as they do, such as {refused}: "
            "change [space]"
        )
    return NothingFeasibleError(
        f"none of {judged} candidates within budget has sparsity that acts on {lengths[0]} tokens ({seen or 'none'}): "
        "narrow the option in [space], or take longer tasks"
    )


def _refusal(problem: Problem) -> str | None:
    """Why some candidate of one layer repeated cannot stand so."""
    space = problem.space
    layers = (layer for entry in space.entries.values() for layer in entry.layers)
    verdicts = (problem.judge(ArchSpec(model=space.model, layers=(layer,) * space.n_layers)) for layer in layers)
    return next((verdict.refusal for verdict in verdicts if verdict.refusal is not None), None)
