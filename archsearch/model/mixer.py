"""Mixer: the torch layer of a token mixer, and the state that it decodes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from archsearch.mixer import Dtype, LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model.context import Context


@dataclass(kw_only=True)
class MixerState:
    """What one layer keeps for a batch of sequences while it decodes.

    ``tensors[name]`` is `[B, rows, *row_shape]` as `MixerPlugin.state` describes it for ``capacity`` tokens;
    ``lengths`` `[B]` int64 counts the tokens that each sequence has seen.
    """

    tensors: dict[str, Tensor]
    lengths: Tensor
    capacity: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, as `MixerPlugin.state` promises them for the capacity and batch."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def clone(self) -> MixerState:
        """A copy that shares no memory."""
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        return MixerState(tensors=tensors, lengths=self.lengths.clone(), capacity=self.capacity)


class Mixer(nn.Module):
    """A token mixer's layer. Subclasses write `forward`, and `step` where a cheaper recurrent form exists.

    A state that is passed in may be updated in place: go on with the one that is returned.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__()
        self.plugin, self.options, self.shape, self.layer = plugin, options, shape, layer

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """An empty state for `batch` sequences of up to `capacity` tokens, by default in the parameters' dtype."""
        like = next(self.parameters(), torch.empty(0))
        name = cast(Dtype, str(dtype or like.dtype).removeprefix("torch."))
        device = device or like.device
        tensors = {
            row.name: torch.zeros(
                batch, row.rows(capacity), *row.row_shape, dtype=getattr(torch, row.dtype), device=device
            )
            for row in self.plugin.state(self.options, replace(self.shape, dtype=name), self.layer)
        }
        lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        return MixerState(tensors=tensors, lengths=lengths, capacity=capacity)

    def state_for(self, x: Tensor, state: MixerState | None, ctx: Context) -> MixerState | None:
        """The state to fill: the one given, a new one for `x` `[B, T, D]` when the context wants one, or None."""
        if state is None and ctx.want_state:
            return self.init_state(x.shape[0], x.shape[1], dtype=x.dtype, device=x.device)
        return state

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`, going on from `state` when one is given; the state after it, or None."""
        raise NotImplementedError

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token `[B, D]` to `[B, D]`: the recurrent form."""
        y, state_after = self(x_t[:, None], state=state, ctx=ctx)
        return y[:, 0], cast(MixerState, state_after)
