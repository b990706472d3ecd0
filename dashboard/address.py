"""The address: what of a view is in its URL, read and written as pure functions.

Widgets keep themselves in the URL under their keys, by what they show. What no widget holds is here: the search, the
trial, the trials and patterns that are compared, and options that stand in the URL by their key and not by their label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

SEARCH, TRIAL, TRIALS, PATTERNS = "search", "trial", "trials", "pattern"
COMPARED = 6
"""How many architectures stand side by side."""

OptionT = TypeVar("OptionT", str, int)
Query = Mapping[str, str | list[str]]


def trial_of(text: str | None) -> int | None:
    """The trial, or another whole number, that a URL names; None for none, and for what is no number."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def trials_of(text: str | None) -> tuple[int, ...]:
    """The trials of ``"3,17,20"``, each once, at most `COMPARED`; what is no number is left out."""
    found = (trial_of(part.strip()) for part in (text or "").split(","))
    return tuple(dict.fromkeys(trial for trial in found if trial is not None))[:COMPARED]


def option_of(text: str | None, options: Sequence[OptionT]) -> OptionT | None:
    """The option that a URL names by its key; None for none, and for what is no option."""
    return {str(option): option for option in options}.get(text or "")


def clicked_trial(event: Mapping[str, Any]) -> int | None:
    """The trial of the point that was clicked in a chart, from its customdata; None for none."""
    for point in event.get("selection", {}).get("points", ()):
        custom = point.get("customdata")
        if custom:
            return int(custom[0] if isinstance(custom, list | tuple) else custom["0"])
    return None


def clicked_row(event: Mapping[str, Any]) -> int | None:
    """The number of the row that was chosen in a table, from 0; None for none."""
    rows = event.get("selection", {}).get("rows", ())
    return int(rows[0]) if rows else None


def query(
    *, search: str | None = None, trial: int | None = None, trials: Iterable[int] = (), patterns: Iterable[str] = ()
) -> dict[str, str | list[str]]:
    """The query of a link; what is not given is left out."""
    listed, typed = ",".join(map(str, trials)), list(patterns)
    values: dict[str, str | list[str] | None] = {
        SEARCH: search,
        TRIAL: None if trial is None else str(trial),
        TRIALS: listed or None,
        PATTERNS: typed or None,
    }
    return {key: value for key, value in values.items() if value}
