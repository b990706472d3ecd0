"""The layer of 2-simplicial attention, and its cache: rings of both windows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.padded import PaddedRows
from archsearch.ops.rotary import Rotary

from .ops import Spans, simplicial_attention, simplicial_attention_step
from .options import SimplicialOptions

_NAMES = ("k", "v", "k2", "v2")


class SimplicialAttention(AttentionMixer):
    """A token sees pairs of tokens. Its keys and values are two, side by side in the channels of `k` and `v`; token t
    lies at row t modulo the window of each ring. Scores by determinants stay where a position turns each group of three
    channels around its third."""

    options: SimplicialOptions

    def __init__(
        self, plugin: MixerPlugin[Any], options: SimplicialOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer, rope=0.0, qk_norm=options.qk_norm)
        self.second = nn.Linear(shape.d_model, 2 * self.n_kv_heads * self.head_dim, bias=False)
        turned = 2 * (self.head_dim // 3)
        self.rotary = Rotary(turned, fraction=options.rope, base=options.rope_base)
        self.windows = (options.window, options.window, options.second_window, options.second_window)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q `[B, T, Hq, D]`, k and v `[B, T, Hkv, 2 D]`."""
        q, k, v = super().project(x, positions)
        k2, v2 = self.second(x).unflatten(-1, (2, self.n_kv_heads, -1)).unbind(2)
        return q, torch.cat((k, self.rotary(positions, k2)), dim=-1), torch.cat((v, v2), dim=-1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        places = None if cu_seqlens is None else PaddedRows.of(cu_seqlens, q.shape[1])
        if places is not None:
            q, k, v = (places.pad(x) for x in (q, k, v))
        padded = (F.pad(x, (0, 0, 0, 0, window - 1, 0)) for x, window in zip(_parts(k, v), self.windows, strict=True))
        before = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        spans = Spans(**dict(zip(_NAMES, padded, strict=True)), before=before)
        o = simplicial_attention(q, spans, score=self.options.score)
        return o if places is None else places.unpad(o)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        index, tensors = token_indices(state, k.shape[1]), dict(state.tensors)
        for name, new, window in zip(_NAMES, _parts(k, v), self.windows, strict=True):
            tensors[name] = write_rows(tensors[name], index[:, -window:] % window, new[:, -window:])
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        if q.shape[1] == 1:
            tensors = self.remember(k, v, state)
            k, v, k2, v2 = (tensors[name][:, : state.most + 1] for name in _NAMES)
            lengths, score = state.lengths + 1, self.options.score
            return simplicial_attention_step(q[:, 0], (k, v), (k2, v2), lengths, score=score)[:, None], tensors
        spans = {
            name: torch.cat((_latest(state, name, window).to(new.dtype), new), dim=1)
            for name, new, window in zip(_NAMES, _parts(k, v), self.windows, strict=True)
        }
        o = simplicial_attention(q, Spans(**spans, before=state.lengths), score=self.options.score)
        return o, self.remember(k, v, state)


def _parts(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First key and value, second key and value."""
    (k, k2), (v, v2) = k.chunk(2, dim=-1), v.chunk(2, dim=-1)
    return k, v, k2, v2


def _latest(state: MixerState, name: str, window: int) -> Tensor:
    """The last window - 1 tokens of a ring in order, any row where there was none."""
    ring = state.tensors[name]
    index = state.lengths[:, None] + torch.arange(1 - window, 0, device=ring.device)
    rows = (index % window).clamp(max=ring.shape[1] - 1)
    return ring[torch.arange(len(ring), device=ring.device)[:, None], rows]
