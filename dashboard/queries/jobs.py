"""Jobs of a cluster as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from archsearch.printable import printable

from .searches import age

FINISHED = ("SUCCEEDED", "FAILED", "STOPPED", "LOST", "CANCELLED")
"""States in which nothing is left to be stopped."""
LINES, MOST_LINE = 60, 400
"""Lines of a log that are shown, and characters of each."""


def jobs_table(jobs: Sequence[Mapping[str, Any]], now: datetime) -> pd.DataFrame:
    """One row a job, in the order given; the column of owners is left out where no job has one."""
    rows = [
        {
            "job": _text(job.get("id")),
            "search": _text(job.get("search")),
            "state": _text(job.get("status")).lower(),
            "owner": _text(job.get("owner")),
            "sent": age(begun, now) if (begun := _moment(job.get("started_at"))) else "",
            "took": _took(job),
            "reason": _text(job.get("reason")),
        }
        for job in jobs
    ]
    table = pd.DataFrame(rows)
    return table if table["owner"].any() else table.drop(columns="owner")


def last_lines(text: str) -> tuple[str, int]:
    """The end of a log as a page shows it, and how many lines before it are left out."""
    lines = printable(text).splitlines()
    kept = [line if len(line) <= MOST_LINE else f"{line[:MOST_LINE]}…" for line in lines[-LINES:]]
    return "\n".join(kept), max(0, len(lines) - LINES)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _moment(value: object) -> datetime | None:
    """A moment as the command line writes it; None for what is none."""
    try:
        moment = datetime.fromisoformat(str(value)) if value else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _took(job: Mapping[str, Any]) -> str:
    begun, ended = _moment(job.get("started_at")), _moment(job.get("finished_at"))
    if begun is None or ended is None:
        return ""
    seconds = max(0.0, (ended - begun).total_seconds())
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
