"""Search: the spec, the space, the sampler, and the runner that trains what they propose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archsearch.search.spec import SearchSpec

if TYPE_CHECKING:
    from archsearch.search.runner import SearchOutcome, resume_search, run_search

__all__ = ["SearchOutcome", "SearchSpec", "resume_search", "run_search"]


def __getattr__(name: str) -> object:
    """The runner imports ray and torch: only those who run a search pay for it."""
    if name in ("SearchOutcome", "resume_search", "run_search"):
        from archsearch.search import runner

        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
