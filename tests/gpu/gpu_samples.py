"""Samples: the one case of each check that runs where there is no card, under Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def samples(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Of each test function the first case whose parameters are those that its mark `sample` names, if it has one.

    Rows are listed from the smallest on, so that it is one of the first row. Raises `UsageError` for a mark that names
    no case: the check would go untried.
    """
    by_check: dict[str, list[pytest.Item]] = {}
    for item in items:
        by_check.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return [_sample(check, cases) for check, cases in by_check.items()]


def _sample(check: str, cases: list[pytest.Item]) -> pytest.Item:
    mark = cases[0].get_closest_marker("sample")
    wanted = {} if mark is None else mark.kwargs
    for case in cases:
        given = case.callspec.params  # type: ignore[attr-defined]
        if all(given.get(name) == value for name, value in wanted.items()):
            return case
    raise pytest.UsageError(f"{check}: its mark sample({wanted}) names none of its {len(cases)} cases")
