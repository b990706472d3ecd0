"""Bench: measured times of mixers and models on this device."""

from archsearch.bench.timing import Timing, alternate, ratio

__all__ = ["Timing", "alternate", "ratio"]
