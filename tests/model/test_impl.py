"""Which implementation runs: named, by default, by the environment, and said once."""

from __future__ import annotations

import logging

import pytest

from archsearch.errors import KernelUnavailableError, OptionsError
from archsearch.ops.impl import choose_impl


def test_auto_is_the_default_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "archsearch.impl")
    chosen = [choose_impl("op_said_once", "auto", why="nothing else") for _ in range(3)]
    assert chosen == ["chunkwise"] * 3
    assert caplog.messages == ["op_said_once runs chunkwise: nothing else"]


def test_a_named_implementation_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "archsearch.impl")
    assert choose_impl("op_named", "reference") == "reference"
    assert caplog.messages == []


def test_the_environment_stands_in_for_auto_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "archsearch.impl")
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    assert choose_impl("op_environment", "auto") == "reference"
    assert choose_impl("op_environment", "chunkwise") == "chunkwise"
    assert caplog.messages == ["op_environment runs reference: ARCHSEARCH_IMPL is set"]


@pytest.mark.parametrize("variable", ["", "auto"])
def test_an_empty_variable_changes_nothing(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", variable)
    assert choose_impl("op_empty", "auto") == "chunkwise"


def test_what_cannot_run_is_an_error_that_says_what_can() -> None:
    with pytest.raises(KernelUnavailableError, match=r'op\(impl="triton"\) cannot run here.*"auto", "reference"'):
        choose_impl("op", "triton")
    with pytest.raises(OptionsError, match=r'op\(impl="tritn"\).*did you mean "triton"'):
        choose_impl("op", "tritn")
