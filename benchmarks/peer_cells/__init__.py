"""Cells: what archsearch and a peer are both asked to compute, on the same numbers."""
