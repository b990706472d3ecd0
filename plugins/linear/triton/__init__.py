"""Triton kernels of the plugin: device code, launch and tables; device code is imported only where it runs."""
