"""Samples of what a search writes."""

from __future__ import annotations

from typing import Any

OBJECTIVES = [
    {"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"},
    {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"},
]


def measurement(**changes: Any) -> dict[str, Any]:
    """What `Measurement.to_json` gives, as far as the store looks at it."""
    values: dict[str, Any] = {
        "key": "k0", "task": "mqar:capacity", "seed": 0, "status": "complete", "reason": None,
        "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.25}, "curve": (), "unexercised": (),
    }  # fmt: skip
    return {**values, **changes}
