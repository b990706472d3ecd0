"""Host code that launches the shared kernels."""
