"""Added candidates: read from the notation that somebody wrote, and judged before anybody trains them."""

from __future__ import annotations

from archsearch.arch import ArchSpec, whole_pattern
from archsearch.composition import mixers_of
from archsearch.laws import untrainable
from archsearch.search.problem import Problem, Verdict
from archsearch.source import Part


def read_candidate(text: str, problem: Problem) -> ArchSpec:
    """The architecture that a pattern writes on a search's backbone; one layer alone stands in every place.

    Its mixers may be others than those of the space. Raises `NotationError`, or `SpecError` where the number of layers
    is another one.
    """
    return whole_pattern(text, problem.space.model, problem.space.n_layers, problem.registry)


def judge_candidate(arch: ArchSpec, problem: Problem) -> Verdict:
    """The verdict on a candidate that need not come from the space: one that cannot be trained at all is refused."""
    why = untrainable(arch, problem.registry)
    return problem.judge(arch) if why is None else problem.judge.refused(why)


def parts_beside(arch: ArchSpec, problem: Problem) -> list[Part]:
    """The parts of source of a candidate's mixers that neither the space nor the references have."""
    known = {part.name for part in problem.parts()}
    mixers = sorted(mixers_of(arch.layers, problem.registry))
    return [part for part in problem.registry.parts(mixers, []) if part.name not in known]
