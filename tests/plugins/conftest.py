"""Fixtures of the kernels' tests, and which options meet every law in the default run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from archsearch.testing import MixerConformance
from archsearch.testing.recording import device_of


def pytest_itemcollected(item: pytest.Item) -> None:
    """A law carries the marker "arena" for the options that its suite does not name among those that are `quick`.

    On a card, where there is no default run, it carries none.
    """
    suite, callspec = getattr(item, "cls", None), getattr(item, "callspec", None)
    quick = getattr(suite, "quick", None)
    if quick is None or callspec is None or device_of(item.config) != "cpu" or item.get_closest_marker("slow"):
        return
    assert issubclass(suite, MixerConformance)
    cases = suite()._all_cases()
    if callspec.params["values"] not in [cases[name] for name in quick]:
        item.add_marker(pytest.mark.arena)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Memory that nobody has written yet holds NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
