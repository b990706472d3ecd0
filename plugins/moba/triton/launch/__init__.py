"""Host code that launches the plugin's kernels."""
