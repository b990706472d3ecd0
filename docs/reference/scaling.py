"""The table of trials an hour in docs/scaling.md, from the file that benchmarks/scaling.py has written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reference.texts import table

SCALING = Path(__file__).parents[1] / "results" / "scaling.json"
_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def scaling_table(file: Path = SCALING) -> str:
    """One row a database and number of workers."""
    found = json.loads(file.read_text(encoding="utf-8"))
    columns = [
        "database",
        "workers",
        "trials an hour",
        "of what sleeping allows",
        "driver's CPU a trial",
        "statements a trial",
        "load",
    ]
    rates = found["rates"]
    told = ", ".join(sorted({f"{rate['seconds']:g} s and {rate['reports']} reports" for rate in rates}))
    days = ", ".join(sorted({rate["measured"] for rate in rates}))
    said = f"Trials of {told}, measured on {days} on {found['cores']} cores."
    return f"{said}\n\n{table(columns, map(_cells, rates))}"


def _cells(rate: Mapping[str, Any]) -> list[str]:
    share = rate["trials_an_hour"] * rate["seconds"] / 3600 / rate["workers"]
    return [
        _NAMES[rate["database"]],
        str(rate["workers"]),
        f"{rate['trials_an_hour']:,.0f}",
        f"{share:.0%}",
        f"{1000 * rate['driver_cpu']:.0f} ms",
        f"{rate['statements']:.0f}",
        f"{rate['load']:.0f}",
    ]
