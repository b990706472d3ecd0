"""The layer of windowed attention with a sink logit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut

if TYPE_CHECKING:
    from . import SinkOptions


class SinkAttention(AttentionMixer):
    """Token t lies at row t % window of the ring."""

    def __init__(self, plugin: MixerPlugin[Any], options: SinkOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.window = options.window
        self.sink = nn.Parameter(torch.zeros(shape.n_heads))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        op = partial(banded_attention, sink=self.sink, window=self.window)
        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart("sink", op)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        rows = token_indices(state, k.shape[1])[:, -self.window :] % self.window
        named = (("k", k), ("v", v))
        return {name: write_rows(state.tensors[name], rows, new[:, -self.window :]) for name, new in named}

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        index = token_indices(state, q.shape[1])
        filled = min(state.most, self.window)
        if q.shape[1] == 1:  # the new token takes the row of the one that left the window
            tensors = self.remember(k, v, state)
            k, v = (tensors[name][:, : min(state.most + 1, self.window)].to(q.dtype) for name in ("k", "v"))
            visible = torch.arange(k.shape[1], device=q.device) <= index[..., None]
            return sink_attention(q, k, v, visible, self.sink), tensors
        rows, last = torch.arange(filled, device=q.device), state.lengths[:, None] - 1
        held = last - (last - rows) % self.window  # index of the token that lies in a row, negative where none does
        keys = torch.cat((held, index), dim=1)[:, None]
        visible = (keys >= 0) & (keys <= index[..., None]) & (keys > index[..., None] - self.window)
        k_all, v_all = (
            torch.cat((state.tensors[name][:, :filled].to(q.dtype), new), 1) for name, new in (("k", k), ("v", v))
        )
        return sink_attention(q, k_all, v_all, visible, self.sink), self.remember(k, v, state)


def banded_attention(q: Tensor, k: Tensor, v: Tensor, *, sink: Tensor, window: int) -> Tensor:
    """A whole sequence, `window` queries at a time over the at most 2 `window` keys that some of them see."""
    outputs = []
    for start in range(0, q.shape[1], window):
        end, first = min(start + window, q.shape[1]), max(0, start - window + 1)
        queries, keys = (torch.arange(*span, device=q.device) for span in ((start, end), (first, end)))
        visible = (keys <= queries[:, None]) & (keys > queries[:, None] - window)
        outputs.append(sink_attention(q[:, start:end], k[:, first:end], v[:, first:end], visible[None], sink))
    return torch.cat(outputs, 1)


def sink_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, sink: Tensor) -> Tensor:
    """q `[B, T, Hq, D]`, k and v `[B, S, Hkv, D]`, visible `[B or 1, T, S]`, sink `[Hq]` to `[B, T, Hq, D]`."""
    grouped = torch.unflatten(q.float(), 2, (k.shape[2], -1))
    scores = torch.einsum("bthgd,bshd->bthgs", grouped, k.float()) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~visible[:, :, None, None], -torch.inf)
    logit = sink.float().view(k.shape[2], -1, 1).expand(*scores.shape[:-1], 1)
    weights = torch.cat((scores, logit), dim=-1).softmax(-1)[..., :-1]
    return torch.einsum("bthgs,bshd->bthgd", weights, v.float()).flatten(2, 3).to(q.dtype)
