"""ValueResidual: the values that a layer hands on, and those of an earlier layer that it mixes into its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archsearch.arch import ArchSpec
from archsearch.errors import PluginError
from archsearch.layer import LayerInfo, Resolver
from archsearch.model.context import Context
from archsearch.value_residual import sources

NAME = "values"
"""Under which a layer shares its values."""


class ValueResidual(nn.Module):
    """v of a token, shared with later layers where ``source`` is None; else a v + b v_1, v_1 what the layer ``source``
    shared (arXiv 2410.17897): a and b trained and 1/2 at first where they are ``learned``, else 1/2."""

    def __init__(self, layer: LayerInfo, source: int | None, *, learned: bool = False) -> None:
        super().__init__()
        self.layer, self.source = layer, source
        self.weights = nn.Parameter(torch.full((2,), 0.5)) if learned and source is not None else None

    def forward(self, v: Tensor, ctx: Context) -> Tensor:
        """`[B, T, H, V]` to `[B, T, H, V]`; raises `PluginError` where the earlier values are of another shape."""
        if self.source is None:
            ctx.share(self.layer, NAME, v)
            return v
        first: Tensor = ctx.shared_by(self.source, NAME).to(v.dtype)
        if first.shape != v.shape:
            raise PluginError(
                f"layer {self.layer.index} has values {list(v.shape)} and layer {self.source} shared "
                f"{list(first.shape)}: both plugins must give mix_values [B, T, *values()]"
            )
        if self.weights is None:
            return 0.5 * (v + first)
        own, earlier = self.weights.to(v.dtype)
        mixed: Tensor = own * v + earlier * first
        return mixed


def value_residual_of(arch: ArchSpec, index: int, resolver: Resolver) -> ValueResidual | None:
    """What layer `index` does with its values, None where it keeps them to itself."""
    from_layers = sources(arch.layers, arch.model, resolver)
    if from_layers[index] is None and index not in from_layers:
        return None
    learned = arch.model.value_residual == "learned"
    return ValueResidual(arch.layer_info(index), from_layers[index], learned=learned)
