"""Triton kernels of multi-head latent attention, and what proves them."""
