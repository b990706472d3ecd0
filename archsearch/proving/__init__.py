"""Proving: what every row of a kernel table is asked before "auto" takes it, on a card or interpreted.

``python -m archsearch.proving`` puts one row to the proof, in a process that nobody minds to lose.
"""

from archsearch.proving.check import Attempt, Case, Check, grid
from archsearch.proving.compare import Verdict, worst
from archsearch.proving.judging import Op, compare, future_unseen

__all__ = ["Attempt", "Case", "Check", "Op", "Verdict", "compare", "future_unseen", "grid", "worst"]
