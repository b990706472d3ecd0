"""The survey of a space before anything is trained: how many candidates, and how hard the budget bites."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
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
class Refused:
    """How many of the candidates that were seen cannot stand as they do, and why the first of them cannot."""

    count: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """``judged`` candidates of ``candidates`` in all: how many are trainable, over budget, or not exercised.

    ``exhaustive`` says that every candidate was judged; ``tightest`` is None when one meets the budget, ``refused``
    when all can stand as they do. What is refused has no costs, and so meets no budget.
    """

    candidates: int
    judged: int
    trainable: int
    over_budget: int
    unexercised: int
    exhaustive: bool
    tightest: Tightest | None
    refused: Refused | None = None

    @property
    def within_budget(self) -> float:
        """Share of the judged candidates that meet the budget."""
        return 1.0 - (self.over_budget + (self.refused.count if self.refused else 0)) / self.judged


def survey(problem: Problem, *, sample: int = SAMPLE) -> Survey:
    """Judges every candidate of a small space, random ones of a large one; equal problems give equal surveys."""
    count = problem.space.count()
    exhaustive = count <= sample
    rng = random.Random(problem.spec.seed)
    drawn: Iterable[ArchSpec] = (
        problem.space.all() if exhaustive else (problem.space.random(rng) for _ in range(sample))
    )
    judged = [(arch, problem.judge(arch)) for arch in drawn]
    return Survey(
        candidates=count,
        judged=len(judged),
        trainable=sum(verdict.trainable for _, verdict in judged),
        over_budget=sum(verdict.over_budget for _, verdict in judged),
        unexercised=sum(bool(verdict.unexercised) for _, verdict in judged),
        exhaustive=exhaustive,
        tightest=tightest(judged, problem.registry),
        refused=refused(judged),
    )


def tightest(judged: Sequence[tuple[ArchSpec, Verdict]], registry: Registry) -> Tightest | None:
    """Of candidates that are over budget, the one whose largest excess is least; None where there is none, or where
    another candidate meets the budget."""
    over = [(arch, verdict) for arch, verdict in judged if verdict.over_budget]
    if not over or any(verdict.refusal is None and not verdict.over_budget for _, verdict in judged):
        return None
    arch, verdict = min(over, key=lambda pair: worst_excess(pair[1]))
    worst = max(verdict.violations, key=lambda violation: violation.excess)
    return Tightest(pattern=arch.pattern(registry), text=str(worst), excess=worst.excess)


def refused(judged: Sequence[tuple[ArchSpec, Verdict]]) -> Refused | None:
    """The candidates that cannot stand as they do, None where all can."""
    reasons = [verdict.refusal for _, verdict in judged if verdict.refusal is not None]
    return Refused(count=len(reasons), reason=reasons[0]) if reasons else None


def worst_excess(verdict: Verdict) -> float:
    """The largest excess over a limit; 0 and less is within budget."""
    return max(verdict.slack.values(), default=0.0)


def nothing_feasible(
    problem: Problem, judged: int, nearest: Tightest | None, refused: Refused | None
) -> NothingFeasibleError:
    """The error for a space of which no candidate can be trained: the tightest figure seen, or the sparsity that does
    not act, and the layers that cannot stand as they do."""
    if refused is None:
        return NothingFeasibleError(f"none of {judged} candidates {_barrier(problem, nearest)}")
    if refused.count == judged:
        return NothingFeasibleError(
            f"none of {judged} candidates can be trained: their layers cannot stand as they do, such as "
            f"{refused.reason}: change [space]"
        )
    return NothingFeasibleError(
        f"none of {judged} candidates can be trained: {refused.count} cannot stand as they do, such as "
        f"{refused.reason}; none of the others {_barrier(problem, nearest)}"
    )


def _barrier(problem: Problem, nearest: Tightest | None) -> str:
    """What no candidate does that can stand as it does, and the remedy."""
    if nearest is not None:
        return (
            f"meets the budget: the tightest, {nearest.pattern}, has {nearest.text}: "
            "raise [budget], or offer cheaper mixers in [space]"
        )
    lengths = sorted({task.seq_len for task in problem.tasks.values()})
    archs = (ArchSpec(model=problem.space.model, layers=(layer,)) for layer in problem.space.layers)
    seen = next((str(found) for arch in archs for found in problem.judge(arch).unexercised), "none")
    return (
        f"within budget has sparsity that acts on {lengths[0]} tokens ({seen}): "
        "narrow the option in [space], or take longer tasks"
    )
