"""Analysis: what a search found, computed from the store's frames; no SQL and no torch."""

from __future__ import annotations

from archsearch.analysis.front import front, non_dominated
from archsearch.analysis.hypervolume import hypervolume, hypervolume_over_trials
from archsearch.analysis.points import points

__all__ = ["front", "hypervolume", "hypervolume_over_trials", "non_dominated", "points"]
