"""Grids of cases: a few of them in the default run, all of them with the slow tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest


def grid(cases: Mapping[str, Any], quick: Collection[str]) -> list[Any]:
    """A parameter a case by its name; those that `quick` does not name carry the marker "slow"."""
    unknown = set(quick) - set(cases)
    assert not unknown, f"no such cases: {unknown}"
    return [
        pytest.param(case, id=name, marks=() if name in quick else pytest.mark.slow) for name, case in cases.items()
    ]
