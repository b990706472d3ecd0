"""Device code that the kernels of several plugins share, and its launch."""
