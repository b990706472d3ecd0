"""Gradients whose forward pass has a file of its own: the stem of a file is a part of the digest of its kernels."""
