"""Six mixers of the field keep the laws of the contract, and compute what their papers write."""

from __future__ import annotations

from typing import ClassVar

from field_dsa import DsaPlugin
from field_h2o import H2oPlugin
from field_mamba1 import Mamba1Plugin
from field_mla import MlaPlugin
from field_sink import SinkPlugin
from field_ttt import TttPlugin

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


class TestTtt(MixerConformance):
    plugin = TttPlugin()
    shape = SHAPE
    cases: ClassVar = {"batch-8": {"mini_batch": 8}, "batch-1": {"mini_batch": 1}, "batch-40": {"mini_batch": 40}}
    traffic_slack = 1 / 8  # the mean is told, of which one token in a mini-batch writes more


class TestSink(MixerConformance):
    plugin = SinkPlugin()
    shape = SHAPE
    cases: ClassVar = {"window-8": {"window": 8}, "window-1": {"window": 1}, "nope-70": {"window": 70, "rope": 0.0}}


class TestDsa(MixerConformance):
    plugin = DsaPlugin()
    shape = SHAPE
    cases: ClassVar = {
        "top-8": {"top_k": 8, "index_heads": 2, "index_dim": 6},
        "top-1": {"top_k": 1, "index_heads": 1, "index_dim": 8, "rope": 0.0},
        "top-30": {"top_k": 30, "index_heads": 3, "index_dim": 4, "rope": 1.0},
    }
    traffic_slack = 0.15  # an index key that is read is not seen to be where disturbing it leaves the choice as it is


class TestH2o(MixerConformance):
    plugin = H2oPlugin()
    shape = SHAPE
    cases: ClassVar = {
        "8-and-4": {"heavy": 8, "recent": 4},
        "1-and-1": {"heavy": 1, "recent": 1, "rope": 0.0},
        "3-and-30": {"heavy": 3, "recent": 30},
    }
    traffic_slack = 0.9  # a token that becomes heavy is moved, one that is dropped is not
    drops_beyond = False  # the forward pass drops nothing
