"""Fixtures of the kernels' tests, and which options meet every law in the default run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from archsearch.testing import MixerConformance
from archsearch.testing.recording import device_of


def pytest_itemcollected(item: pytest.Item) -> None:
    """A law carries the marker "arena" for the options that its suite does not name among those that are `quick`, and
    beside it "slow" for what is neither a preset nor the default, and for a second form.

    On a card, where there is no default run, it carries none.
    """
    suite, callspec = getattr(item, "cls", None), getattr(item, "callspec", None)
    if suite is None or callspec is None or not issubclass(suite, MixerConformance) or item.get_closest_marker("slow"):
        return
    if "values" not in callspec.params or device_of(item.config) != "cpu":
        return
    quick, cases, values = getattr(suite, "quick", None), suite()._all_cases(), callspec.params["values"]
    if quick is not None and values not in [cases[name] for name in quick]:
        item.add_marker(pytest.mark.arena)
    usual = [cases[name] for name in ("default", *suite.plugin.presets) if name in cases]
    another_form = callspec.params.get("impl", suite.impls[0]) != suite.impls[0]
    if item.get_closest_marker("arena") and (values not in usual or another_form):
        item.add_marker(pytest.mark.slow)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Memory that nobody has written yet holds NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
