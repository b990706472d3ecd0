"""The five built-in mixers keep the laws of the contract."""

from __future__ import annotations

from archsearch.registry import load_registry
from archsearch.testing import MixerConformance

_REGISTRY = load_registry()


class TestFull(MixerConformance):
    plugin = _REGISTRY.mixer("full")
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("default",)


class TestSliding(MixerConformance):
    plugin = _REGISTRY.mixer("sliding")
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("sinks-3",)


class TestMoba(MixerConformance):
    plugin = _REGISTRY.mixer("moba")
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("block-8-top-3",)


class TestNsa(MixerConformance):
    plugin = _REGISTRY.mixer("nsa")
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("block-8-top-3",)


class TestLinear(MixerConformance):
    plugin = _REGISTRY.mixer("linear")
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("kda",)
