"""Speed: what was measured on a card, as data files: their schema, their readers, bounds and targets; no torch."""

from archsearch.speed.results import SCHEMA, KernelRow, ModelRow, Results, read_results, write_results
from archsearch.speed.work import Ceilings, Work

__all__ = ["SCHEMA", "Ceilings", "KernelRow", "ModelRow", "Results", "Work", "read_results", "write_results"]
