"""The zoo's mixers that say more of their values than their layers keep."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from zoo import VALUES, animal
from zoo_mixers import CacheLayer, planted

from archsearch.mixer import ModelShape
from archsearch.model import Context


def one_head(self: Any, options: Any, shape: ModelShape) -> tuple[int, int]:
    return 1, shape.d_model


WITH_VALUES = planted(values=one_head)
"""A sound one."""


class Keeps(CacheLayer):
    def valued(self, v: Tensor, ctx: Context) -> Tensor:
        return v


class MixesInForward(CacheLayer):
    def valued(self, v: Tensor, ctx: Context) -> Tensor:
        return super().valued(v, ctx) if v.shape[1] > 1 else v


class Detaches(CacheLayer):
    def valued(self, v: Tensor, ctx: Context) -> Tensor:
        return v + (super().valued(v, ctx) - v).detach()


class MixesTheFirstOfThePack(CacheLayer):
    def valued(self, v: Tensor, ctx: Context) -> Tensor:
        mixed = super().valued(v, ctx)
        return mixed if ctx.cu_seqlens is None else v.where(ctx.order_of(v)[..., None] > 3, mixed)


for _name, _layer in {
    "keeps-the-values-that-it-names": Keeps,
    "mixes-no-values-in-a-step": MixesInForward,
    "takes-no-gradient-to-earlier-values": Detaches,
    "mixes-values-of-some-packed-tokens": MixesTheFirstOfThePack,
}.items():
    animal(_name, VALUES)(lambda layer=_layer: {"layer": layer, "values": one_head})
animal("names-other-values-than-it-has", VALUES)(lambda: {"values": lambda *of: (2, of[-1].d_model // 2)})
