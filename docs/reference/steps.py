"""The table of training steps in docs/benchmarks.md, from the file that benchmarks/figures.py has written."""

from __future__ import annotations

import json
from pathlib import Path

from archsearch.analysis.catalogue import catalogue
from reference.registered import registry
from reference.texts import code, table

STEPS = Path(__file__).parents[1] / "results" / "steps.json"
MOST = 4.0
"""Times full attention's that a system's training step may take on a CPU."""


def steps_table(file: Path = STEPS) -> str:
    """One row a system, the slowest first, and which are above what is wanted."""
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = sorted(found["rows"], key=lambda row: -float(row["ratio"]))
    families = {entry.name: entry.family for entry in catalogue(registry())}
    above = [f"{code(row['system'])} {row['ratio']:.1f}" for row in rows if row["ratio"] > MOST]
    said = (
        f"{len(rows)} systems, measured on {found['measured']} with torch {found['torch']}, {found['repeats']} repeats "
        f"in turn with full attention. Above {MOST:.0f}: {', '.join(above) or 'none'}."
    )
    cells = (
        [
            code(row["system"]),
            families.get(row["system"], ""),
            f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
        ]
        for row in rows
    )
    return f"{said}\n\n{table(['system', 'family', 'times full attention'], cells)}"
