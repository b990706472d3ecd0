"""Six mixers of the field keep the laws of the contract, and compute what their papers write."""

from __future__ import annotations

from typing import ClassVar

from field_mamba1 import Mamba1Plugin
from field_mla import MlaPlugin

from archsearch.mixer import ModelShape
from archsearch.testing import MixerConformance

SHAPE = ModelShape(d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, dtype="float32")


class TestMla(MixerConformance):
    plugin = MlaPlugin()
    shape = SHAPE
    cases: ClassVar = {"rank-6": {"kv_rank": 6, "rope_dim": 4}, "rank-24": {"kv_rank": 24, "rope_dim": 2}}


class TestMamba1(MixerConformance):
    plugin = Mamba1Plugin()
    shape = SHAPE
    cases: ClassVar = {"state-4": {"state_dim": 4}, "wide": {"expand": 3, "state_dim": 2, "dt_rank": 5, "conv": 2}}
