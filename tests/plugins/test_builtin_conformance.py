"""The five built-in mixers keep the laws of the contract."""

from __future__ import annotations

from typing import ClassVar

from archsearch.registry import load_registry
from archsearch.testing import MixerConformance

_REGISTRY = load_registry()


class TestFull(MixerConformance):
    plugin = _REGISTRY.mixer("full")
    cases: ClassVar = {
        "default": {},
        "nope": {"rope": 0.0},
        "partial-rope": {"rope": 0.25},
        "normed": {"qk_norm": True},
        "one-key-head": {"n_kv_heads": 1},
    }
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("default",)


class TestSliding(MixerConformance):
    plugin = _REGISTRY.mixer("sliding")
    cases: ClassVar = {
        "window-8": {"window": 8},
        "window-1": {"window": 1},
        "sinks-3": {"window": 8, "sinks": 3},
        "more-sinks-than-window": {"window": 3, "sinks": 10},
        "window-70": {"window": 70, "sinks": 2, "rope": 0.0, "qk_norm": True},
    }
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("sinks-3",)


class TestMoba(MixerConformance):
    plugin = _REGISTRY.mixer("moba")
    cases: ClassVar = {
        "block-8-top-3": {"block_size": 8, "top_k": 3},
        "block-16-top-2": {"block_size": 16, "top_k": 2, "rope": 0.25},
        "own-block-alone": {"block_size": 8, "top_k": 1},
        "block-1": {"block_size": 1, "top_k": 5},
    }
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("block-8-top-3",)


class TestNsa(MixerConformance):
    plugin = _REGISTRY.mixer("nsa")
    cases: ClassVar = {
        "block-8-top-3": {"block_size": 8, "top_k": 3, "window": 12},
        "block-16-top-2": {"block_size": 16, "top_k": 2, "window": 5, "rope": 0.25},
        "own-block-alone": {"block_size": 8, "top_k": 1, "window": 8},
    }
    traffic_slack = 0.05  # a chosen block may overlap the window
    drops_beyond = False  # the means of the compression branch see every token
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("block-8-top-3",)


class TestLinear(MixerConformance):
    plugin = _REGISTRY.mixer("linear")
    cases: ClassVar = {
        "other-sizes": {"key_dim": 5, "value_dim": 12, "decay": "head"},
        "delta-constant": {"update": "delta", "decay": "constant"},
    }
    impls = ("chunkwise", "reference", "triton")
    interpreted_cases = ("kda",)
