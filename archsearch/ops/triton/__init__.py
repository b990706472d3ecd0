"""Triton kernels that several plugins share: device code, its launch, its tables."""
