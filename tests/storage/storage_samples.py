"""Samples of what a search writes."""

from __future__ import annotations

from typing import Any

OBJECTIVES = [
    {"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"},
    {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"},
]


def unexercised(layer: str, task: str = "mqar", seq_len: int = 48, dense_up_to: int = 64) -> dict[str, Any]:
    """What `Unexercised.to_json` gives."""
    return {"layer": layer, "task": task, "seq_len": seq_len, "dense_up_to": dense_up_to}


def measurement(**changes: Any) -> dict[str, Any]:
    """What `Measurement.to_json` gives, as far as the store looks at it."""
    values: dict[str, Any] = {
        "key": "k0",
        "task": "mqar:capacity",
        "seed": 0,
        "status": "complete",
        "reason": None,
        "validation": {"accuracy": 0.5},
        "test": {"accuracy": 0.25},
        "curve": (),
        "unexercised": (),
    }
    return {**values, **changes}
