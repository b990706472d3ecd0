"""Keys of a stored spec: which of them a search may have other values of, once it has begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GROWING = (
    "search.trials",
    "search.max_draws",
    "search.concurrency",
    "search.early_stop",
    "search.second_seeds",
    "budget",
    "rung",
)
"""What a search may go on with another value of: more trials and draws, another number of workers, another rule of
early stopping, another share of second seeds, a wider budget, other rungs above those that are begun
(`ladder.standing`). All that was measured stays true under them."""

FREE = ("search.retries", "resources", "ladder")
"""What may change without a word: no result depends on it."""

_CHANGING = {"name", *GROWING, *FREE}


def lasting(spec: Any, where: str = "") -> Any:
    """What of a spec stays as it was when its search began, under whatever name; a table of which nothing stays is
    left out. What is no table is itself."""
    if not isinstance(spec, Mapping):
        return spec
    found: dict[str, Any] = {}
    for key, value in spec.items():
        if f"{where}{key}" in _CHANGING:
            continue
        kept = lasting(value, f"{where}{key}.")
        if kept != {}:
            found[key] = kept
    return found
