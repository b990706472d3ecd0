"""Triton kernels of the plugin: launch and tables; device code is imported only where it runs."""
