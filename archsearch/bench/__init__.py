"""Bench: measured times of mixers and models on this device; what they gave is read in `archsearch.bench.results`."""

from archsearch.bench.timing import Timing, alternate, ratio

__all__ = ["Timing", "alternate", "ratio"]
