"""Search: the spec, the space, the sampler, and the runner that trains what they propose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsearch.search.spec import SearchSpec

if TYPE_CHECKING:
    from archsearch.search.problem import Problem
    from archsearch.search.runner import SearchOutcome, resume_search, run_search

__all__ = ["Problem", "SearchOutcome", "SearchSpec", "resume_search", "run_search"]


def __getattr__(name: str) -> object:
    """The problem imports torch and the runner ray: only those who run a search pay for it."""
    if name == "Problem":
        from archsearch.search.problem import Problem

        return Problem
    if name in ("SearchOutcome", "resume_search", "run_search"):
        from archsearch.search import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
