"""ValueResidual: the values that a layer hands on, and those of an earlier layer that it mixes into its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archsearch.arch import ArchSpec
from archsearch.errors import PluginError
from archsearch.layer import LayerInfo, Resolver
from archsearch.model.context import Context
from archsearch.model.mixer import Mixer
from archsearch.value_residual import Place, taken

NAME = "values"
"""Under which a layer shares its values."""


class ValueResidual(nn.Module):
    """v of a token, shared with later layers where ``source`` is None; else a v + b v_1, v_1 what the mixer ``source``
    shared (arXiv 2410.17897): a and b trained and 1/2 at first where they are ``learned``, else 1/2."""

    def __init__(self, layer: LayerInfo, source: Place | None, *, learned: bool = False) -> None:
        super().__init__()
        self.layer, self.source = layer, source
        self.weights = nn.Parameter(torch.full((2,), 0.5)) if learned and source is not None else None

    def forward(self, v: Tensor, ctx: Context) -> Tensor:
        """`[B, T, H, V]` to `[B, T, H, V]`; raises `PluginError` where the earlier values are of another shape."""
        if self.source is None:
            ctx.share(self.layer, NAME, v)
            return v
        index, part = self.source
        first: Tensor = ctx.shared_by(index, part + NAME).to(v.dtype)
        if first.shape != v.shape:
            raise PluginError(
                f"layer {self.layer.index} has values {list(v.shape)} and layer {index} shared "
                f"{list(first.shape)}: both plugins must give mix_values [B, T, *values()]"
            )
        if self.weights is None:
            return 0.5 * (v + first)
        own, earlier = self.weights.to(v.dtype)
        mixed: Tensor = own * v + earlier * first
        return mixed


def with_value_residual(built: Mixer, arch: ArchSpec, index: int, resolver: Resolver) -> Mixer:
    """The mixer of layer `index`, it and those that it is made of told what they do with their values: nothing, where
    they keep them to themselves."""
    mixed = taken(arch, resolver)
    shared = {source for source, _ in mixed.values()}
    learned = arch.model.value_residual == "learned"
    for one in list(built.modules()):
        if not isinstance(one, Mixer):
            continue
        place = index, one.layer.part
        source = mixed[place][0] if place in mixed else None
        if source is not None or place in shared:
            one.value_residual = ValueResidual(one.layer, source, learned=learned)
    return built
