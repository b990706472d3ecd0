"""Results: what was measured on a card, as data files: their schema, readers, bounds and targets; no torch."""

from archsearch.bench.results.files import gather_results, read_results, write_results
from archsearch.bench.results.schema import SCHEMA, KernelRow, ModelRow, Results
from archsearch.bench.results.work import Ceilings, Work

__all__ = [
    "SCHEMA",
    "Ceilings",
    "KernelRow",
    "ModelRow",
    "Results",
    "Work",
    "gather_results",
    "read_results",
    "write_results",
]
