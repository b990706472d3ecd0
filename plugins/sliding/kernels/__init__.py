"""Triton kernels of the plugin: device code, imported only where a kernel runs or is compiled."""
