"""Matching as it is read: what each architecture of a comparison was asked as, what it became, and how near it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.units import format_quantity

MATCHED_COSTS: Mapping[str, str] = {"params": "params", "state_read": "decode_read_bytes"}
"""The cost that a kind of matching makes equal; that of ``train_flops`` is a training's, which tasks decide."""

MATCHED: Mapping[str, str] = {
    "train_flops": "FLOPs of one training of each task at one learning rate",
    "params": "parameters",
    "state_read": "bytes of state read for one decoded token at {context:,} tokens",
}
"""What each kind of matching makes equal, in words."""


@dataclass(frozen=True, kw_only=True)
class MatchedRow:
    """An architecture: the text that asked for it, the pattern and digest of what it became, its figure ``before`` and
    ``after`` (None where it cannot be told here), and its optimiser steps by task where they are what was matched."""

    asked: str
    pattern: str
    digest: str
    before: float | None
    after: float | None
    steps: Mapping[str, int]

    @property
    def steps_told(self) -> str:
        """Its steps, of several tasks each with its name."""
        if len(self.steps) == 1:
            return str(*self.steps.values())
        return ", ".join(f"{task} {steps}" for task, steps in self.steps.items())


@dataclass(frozen=True, kw_only=True)
class MatchingTable:
    """What was made equal to the ``target``, the figure of ``baseline`` (a pattern) in ``unit``, at ``context`` tokens
    where that matters; ``rows`` are in the order of the list."""

    match: str
    baseline: str
    context: int
    target: float
    unit: str
    rows: tuple[MatchedRow, ...]

    @property
    def title(self) -> str:
        """What is in the table."""
        return f"matched by {self.match}: {MATCHED[self.match].format(context=self.context)}"

    @property
    def has_steps(self) -> bool:
        """Whether steps are what was matched."""
        return self.match == "train_flops"

    def difference(self, row: MatchedRow) -> float | None:
        """How much more than the baseline's a figure is, as a share of that."""
        return None if row.after is None else row.after / self.target - 1.0

    def cells(self, row: MatchedRow) -> dict[str, str]:
        """A row in words, by column."""
        difference = self.difference(row)
        apart = "" if difference is None else f"{difference:+.2%}"
        return {
            "asked": row.asked,
            "trained": row.pattern,
            **({"steps": row.steps_told} if self.has_steps else {}),
            "before": self._figure(row.before),
            "after": self._figure(row.after),
            "difference": "baseline" if row.pattern == self.baseline else apart,
        }

    def _figure(self, value: float | None) -> str:
        return "" if value is None else format_quantity(value, unit=self.unit, digits=4)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        told = {key: getattr(self, key) for key in ("match", "baseline", "context", "target", "unit")}
        return told | {"architectures": [self._row_json(row) for row in self.rows]}

    def _row_json(self, row: MatchedRow) -> dict[str, Any]:
        return {
            "asked": row.asked,
            "pattern": row.pattern,
            "digest": row.digest,
            "before": row.before,
            "after": row.after,
            "difference": self.difference(row),
            "steps": dict(row.steps),
        }
