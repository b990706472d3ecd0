"""Bounds: the time below which the kernels that an op launches cannot come, by their machine code; no card is asked."""

from archsearch.bench.bounds.launch import LaunchBound, bound_launches
from archsearch.bench.bounds.op import OpBound, bound_op, rank_correlation

__all__ = ["LaunchBound", "OpBound", "bound_launches", "bound_op", "rank_correlation"]
