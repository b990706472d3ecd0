"""What a search knows of a candidate that it has decided on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from archsearch.search.problem import Verdict


@dataclass(kw_only=True)
class Known:
    """A candidate: its first trial, what became of it, and its values on validation, means over ``seeds``; ``second``
    says that one more seed of it is being trained."""

    trial: int
    verdict: Verdict
    seeds: tuple[int, ...]
    second: bool = False
    state: Literal["open", "refused", "measured", "failed", "pruned"] = "open"
    values: Mapping[str, float] | None = None
    repeat_recorded: bool = False
