"""The tables of docs/benchmarks.md beside public forms on a CPU, from the file that benchmarks/peers.py has written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference.texts import table

PEERS = Path(__file__).parents[1] / "results" / "peers.json"


def peers_table(file: Path = PEERS) -> str:
    """What was found in all, the ops by size and form, and the decoded tokens."""
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = found["rows"]
    ratios = [row["ratio"] for row in rows]
    said = (
        f"{len(rows)} cells, measured on {found['date']} with torch {found['torch']} on one thread of "
        f"{found['machine']}: median {statistics.median(ratios):.2f}, least {min(ratios):.2f}, "
        f"{sum(ratio < 1 for ratio in ratios)} below 1."
    )
    return f"{said}\n\n{_ops([row for row in rows if row['form'] != 'decode'])}\n\n{_decoding(rows)}"


def _ops(rows: list[Mapping[str, Any]]) -> str:
    """One row an op, peer and size: its forms side by side."""
    forms = list(dict.fromkeys(row["form"] for row in rows))
    lines = dict[tuple[str, str], dict[str, str]]()
    for row in rows:
        lines.setdefault((f"{row['cell']}, {row['peer']}", row["size"]), {})[row["form"]] = _ratio(row)
    made = ([name, size, *(cells.get(form, "") for form in forms)] for (name, size), cells in lines.items())
    return table(["op, beside", "size", *forms], made)


def _decoding(rows: list[Mapping[str, Any]]) -> str:
    decoded = (row for row in rows if row["form"] == "decode")
    return table(
        ["decoding, beside", "ours, theirs", "ratio"],
        (
            [f"{row['cell']}, {row['peer']}", f"{row['ours_ms']:.3g}, {row['theirs_ms']:.3g} ms", _ratio(row)]
            for row in decoded
        ),
    )


def _ratio(row: Mapping[str, Any]) -> str:
    """The median over pairs, with its quartiles."""
    return f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
