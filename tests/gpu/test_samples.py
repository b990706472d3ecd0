"""Of every check on a card one case is tried without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gpu_samples import samples


def case(check: str, mark: dict[str, Any] | None = None, **params: Any) -> Any:
    closest = None if mark is None else SimpleNamespace(kwargs=mark)
    return SimpleNamespace(
        nodeid=f"{check}[{params}]",
        callspec=SimpleNamespace(params=params),
        get_closest_marker=lambda name: {"sample": closest}.get(name),
    )


def test_the_first_row_and_what_the_mark_names() -> None:
    wanted = {"tokens": 65}
    cases = [case("a", wanted, key=key, tokens=tokens) for key in (16, 32) for tokens in (1, 65)]
    assert samples([*cases, case("b", key=16), case("b", key=32)])[0] is cases[1]
    assert [one.nodeid[0] for one in samples([*cases, case("b", key=16), case("b", key=32)])] == ["a", "b"]


def test_a_mark_that_names_no_case_is_an_error() -> None:
    with pytest.raises(pytest.UsageError, match=r"sample\(\{'tokens': 3\}\) names none of its 1 cases"):
        samples([case("a", {"tokens": 3}, key=16, tokens=1)])
