"""The five built-in mixers keep the laws of the contract; in their reference forms too, which users rarely run.

All their options do so in `make test-arena`, and in the default run those that `quick` names.
"""

from __future__ import annotations

import pytest

from archsearch.registry import load_registry
from archsearch.testing import MixerConformance

_REGISTRY = load_registry()


class TestFull(MixerConformance):
    plugin = _REGISTRY.mixer("full")
    impls = ("chunkwise", "triton")
    interpreted_cases = ("default",)
    quick = ("default", "partial-rope", "one-key-head")


class TestSliding(MixerConformance):
    plugin = _REGISTRY.mixer("sliding")
    impls = ("chunkwise", "triton")
    interpreted_cases = ("sinks-3",)
    quick = ("default", "sinks-3", "window-70")


class TestMoba(MixerConformance):
    plugin = _REGISTRY.mixer("moba")
    impls = ("chunkwise", "triton")
    interpreted_cases = ("block-8-top-3",)
    quick = ("default", "block-8-top-3", "block-1")


class TestNsa(MixerConformance):
    plugin = _REGISTRY.mixer("nsa")
    impls = ("chunkwise", "triton")  # its kernels, interpreted, take half a minute: tests/gpu has each of its rows
    quick = ("default", "block-8-top-3", "published")


class TestLinear(MixerConformance):
    plugin = _REGISTRY.mixer("linear")
    impls = ("chunkwise", "triton")
    interpreted_cases = ("kda",)
    quick = ("default", "retnet", "kda", "other-sizes")


@pytest.mark.slow
class TestFullReference(TestFull):
    impls = ("reference",)


@pytest.mark.slow
class TestSlidingReference(TestSliding):
    impls = ("reference",)


@pytest.mark.slow
class TestMobaReference(TestMoba):
    impls = ("reference",)


@pytest.mark.slow
class TestNsaReference(TestNsa):
    impls = ("reference",)


@pytest.mark.slow
class TestLinearReference(TestLinear):
    impls = ("reference",)
