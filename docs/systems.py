"""Writes the table of systems into README.md: ``make systems``."""

from __future__ import annotations

from pathlib import Path

from reference.systems import with_systems

README = Path(__file__).parents[1] / "README.md"

if __name__ == "__main__":
    README.write_text(with_systems(README.read_text(encoding="utf-8")), encoding="utf-8")
