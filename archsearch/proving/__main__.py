"""The child that puts one row to the proof: ``python -m archsearch.proving JSON``; a line of JSON for each step."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import torch

from archsearch.kernels.child import end_with_parent
from archsearch.proving.attempt import CARD_SHARE, FIRST_SECONDS, WHOLE_SECONDS, attempt_row
from archsearch.proving.check import Attempt
from archsearch.proving.rows import all_checks, dtype_named, key_of
from archsearch.registry import load_registry

NO_CHECKS = "its plugin hands no checks to register_kernels (docs/kernels.md)"


def main(arguments: list[str]) -> None:
    """Tries the row that is asked for, and tells what came of it."""
    out, sys.stdout = os.fdopen(os.dup(1), "w", buffering=1), sys.stderr  # what plugins print is not the answer

    def say(**told: Any) -> None:
        print(json.dumps(told), file=out, flush=True)

    asked = json.loads(arguments[0])
    end_with_parent(asked["parent"])
    try:
        say(**answer(asked, say))
    except torch.OutOfMemoryError:
        say(untried="the card has no memory left for it")


def answer(asked: dict[str, Any], say: Any) -> dict[str, Any]:
    """What came of a row: `Outcome`, or ``untried`` with the reason."""
    checks = all_checks(load_registry()).get(asked["op"], [])
    if not checks:
        return {"cases": 0, "error": None, "fault": f"nothing proves it: {NO_CHECKS}"}
    device, whole, key = torch.device(asked["device"]), bool(asked["whole"]), key_of(asked["key"])
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_device(index)
        torch.cuda.set_per_process_memory_fraction(CARD_SHARE, index)
    found = attempt_row(
        Attempt(
            key=key,
            device=device,
            dtype=dtype_named(asked["dtype"]),
            whole=whole,
            candidate=asked["candidate"],
        ),
        checks,
        tell=lambda doing, cases: say(doing=doing, cases=cases),
        compiling=watch_compiler(),
        seconds=math.inf if device.type != "cuda" else WHOLE_SECONDS if whole else FIRST_SECONDS,
    )
    return {"cases": found.cases, "error": found.error, "fault": found.fault, "late": found.late}


def watch_compiler() -> Any:
    """A function that gives the seconds that Triton has compiled for since now."""
    from triton import knobs

    spent = 0.0

    def listen(*, times: Any, **_: Any) -> None:
        nonlocal spent
        spent += times.total / 1e6

    knobs.compilation.listener = listen
    return lambda: spent


if __name__ == "__main__":
    main(sys.argv[1:])
