"""The memory mixers keep the laws of the contract."""

from __future__ import annotations

import pytest

from archsearch.registry import load_registry
from archsearch.testing import MixerConformance


@pytest.mark.arena
class TestMemory(MixerConformance):
    plugin = load_registry().mixer("memory")
    impls = ("chunkwise", "reference")
