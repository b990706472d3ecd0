"""The script that Streamlit runs; it lies apart, because Streamlit takes a folder ``pages`` beside it for its own."""

from __future__ import annotations

__package__ = "archsearch_dashboard.entry"  # a script belongs to no package by itself

from ..app import main

main()
