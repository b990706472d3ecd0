"""Mixers of the arena keep the laws of the contract: each in one case, every preset in the target for it."""

from __future__ import annotations

import pytest

from archsearch.registry import load_registry
from archsearch.testing import MixerConformance

_REGISTRY = load_registry()


@pytest.mark.arena
class TestNone(MixerConformance):
    plugin = _REGISTRY.mixer("none")


@pytest.mark.arena
class TestConv(MixerConformance):
    plugin = _REGISTRY.mixer("conv")


@pytest.mark.arena
class TestParallel(MixerConformance):
    plugin = _REGISTRY.mixer("parallel")
