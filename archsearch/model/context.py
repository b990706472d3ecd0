"""Context: what a mixer is told of a call beside its input; nothing is guessed from a shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from archsearch.errors import PluginError, listing
from archsearch.layer import LayerInfo
from archsearch.model.teacher import Teacher


@dataclass(kw_only=True)
class Context:
    """One forward pass, seen by every layer of it.

    ``positions`` `[B, T]` int64 overrides the positions that follow from the order of tokens: they turn embeddings, and
    say nothing of which token came first. ``cu_seqlens`` `[N + 1]` int64: the batch is one row of N sequences laid end
    to end, the bounds of each. ``want_state``: return a state although none was given. ``held``: tokens that the
    longest sequence of the given states has, where the caller knows them, so that no mixer need ask. ``progress``:
    share of the training done, 0 to 1. ``shared``: what layers handed to later ones in this pass, by (layer, name);
    see `share`. ``teacher``: a model to learn from, on the same tokens, or None.
    """

    positions: Tensor | None = None
    cu_seqlens: Tensor | None = None
    want_state: bool = False
    held: int | None = None
    progress: float = 0.0
    shared: dict[tuple[int, str], Any] = field(default_factory=dict)
    teacher: Teacher | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)

    def add_loss(self, name: str, value: Tensor) -> None:
        """Add a scalar to the training loss (load balance, distillation), summed over layers by name.

        Raises `TypeError` for what is no tensor of floating point, `ValueError` for one that is no scalar.
        """
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f'add_loss("{name}") takes a scalar tensor of floating point, not {_told(value)}')
        if value.ndim:
            raise ValueError(f'add_loss("{name}") takes a scalar tensor, not one of shape {list(value.shape)}: sum it')
        self.losses[name] = self.losses[name] + value if name in self.losses else value

    def share(self, layer: LayerInfo, name: str, value: Any) -> None:
        """Hands `value` to later layers of this pass, under the layer's index and a name of the mixer's own, which has
        the path of the part in front where the mixer is one (`LayerInfo.part`).

        In every form of a pass (prefill, step, packed) and for its tokens alone: what outlives a pass belongs in the
        state of the layer that shares it. Raises `PluginError` for a name that the layer shared already.
        """
        name = layer.part + name
        key = (layer.index, name)
        if key in self.shared:
            raise PluginError(f'layer {layer.index} shares "{name}" twice in one pass: choose another name')
        self.shared[key] = value

    def shared_by(self, index: int, name: str) -> Any:
        """What layer `index` shared under `name` in this pass. Raises `PluginError` that says what there is."""
        key = (index, name)
        if key not in self.shared:
            known = listing(f"{what} of layer {layer}" for layer, what in self.shared)
            raise PluginError(f'layer {index} has shared no "{name}" in this pass: what there is: {known}')
        return self.shared[key]

    def nearest(self, layer: LayerInfo, name: str) -> tuple[int, Any] | None:
        """Index of the nearest layer before `layer` that shared `name` in this pass, and what it shared; None where
        none did. For what a layer can do without, at the same cost: else it says whose it needs (`shared_by`)."""
        name = layer.part + name
        earlier = [index for index, shared in self.shared if shared == name and 0 <= index < layer.index]
        return (max(earlier), self.shared[max(earlier), name]) if earlier else None

    def order_of(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Index `[B, T]` int64 of each token of `x` `[B, T, ...]` in its own sequence, counted from 0, after `lengths`
        `[B]` earlier ones. Masks, counts and rows of a cache go by it."""
        batch, count = x.shape[:2]
        steps = torch.arange(count, device=x.device)
        if self.cu_seqlens is not None:
            starts = self.cu_seqlens.to(x.device)
            owner = torch.searchsorted(starts[1:], steps, right=True)
            return (steps - starts[owner]).expand(batch, count)
        if lengths is None:
            return steps.expand(batch, count)
        return lengths[:, None] + steps

    def positions_of(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Positions `[B, T]` int64 of the tokens of `x` `[B, T, ...]`, for embeddings of position alone: the order of
        tokens unless ``positions`` says otherwise."""
        return self.positions if self.positions is not None else self.order_of(x, lengths)


def _told(value: object) -> str:
    return f"one of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
