"""Bounds that hold in PyTorch and in the kernels alike: what keeps small ops around a mixer finite."""

UNIT_EPS = 1e-6
"""Added to the sum of squares before its root, where vectors are scaled to length 1 (as in Mamba's and FLA's code)."""

LOG_RATE_MOST = 20.0
"""A trained log rate above it is taken for it: exp of 20 forgets everything within a step of 3e-7, and 88 overflows."""

STEP_MOST = 1e4
"""A step size before its softplus above it is taken for it; steps start at 0.1 at most."""
