"""Mixers of the zoo that keep every law, and a pair of which one reads what the other gives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from zoo import Mixes
from zoo_figures import rewriting
from zoo_mixers import CacheLayer, LevelsPlugin, planted
from zoo_values import WITH_VALUES

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, MixerState
from archsearch.testing.toy import ToyPlugin

SOUND = {
    "attention": planted(),
    "attention-with-values": WITH_VALUES,
    "levels": planted(base=LevelsPlugin),
    "a-mean": planted(base=ToyPlugin),
    "a-cache-that-is-rewritten-with-its-peak-stated": rewriting(peak=True),
    "packing-that-is-declared-broken": planted(Mixes, broken_laws={"packed": "averages"}),
}
"""Mixers that keep every law."""


class Gives(CacheLayer):
    """Shares a gate with later layers."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        ctx.share(self.layer, "gate", torch.tanh(x))
        return super().forward(x, state=state, ctx=ctx)


class Reads(CacheLayer):
    """Adds the gate of the last layer that gives one."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        giver = max(index for index, layer in enumerate(self.layer.earlier) if layer.mixer == "zoo-giver")
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + ctx.shared_by(giver, "gate"), after


def _behind_a_giver(self: Any, options: Any, shape: ModelShape, layer: LayerInfo) -> str | None:
    given = any(earlier.mixer == "zoo-giver" for earlier in layer.earlier)
    return None if given else "there is no giver before it"


READER_SAYS = {"name": "zoo-reader", "reads_pattern": True, "check": _behind_a_giver}
GIVER, READER = planted(Gives, name="zoo-giver"), planted(Reads, **READER_SAYS)
