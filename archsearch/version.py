"""The version of archsearch, told once: pyproject.toml says the same."""

__version__ = "0.1.0"
