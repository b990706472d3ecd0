"""Writes the tables that stand in pages as text: of systems into README.md, of runs into docs/results.md."""

from __future__ import annotations

from reference.written import PAGES, with_tables

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
