"""The layer of PaTH attention, whose cached keys every later token moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.model.attention import token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.short_conv import ShortConv, next_tail

from .options import FullOptions
from .path import Decays, Moved, path_attention
from .rows import RowsAttention, at_least_float32
from .weights import running

_EPS = 1e-6


class PathAttention(RowsAttention):
    """Each token has a reflection a key head: a unit vector, from a convolution of some numbers of the last tokens, and
    a strength in 0 .. 2. The cache has the keys as all tokens so far have moved them."""

    def __init__(self, plugin: MixerPlugin[Any], options: FullOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        width, rank = self.n_kv_heads * self.head_dim, options.reflection_rank
        self.narrow = nn.Linear(shape.d_model, rank, bias=False) if rank else None
        self.reflect = nn.Linear(rank or shape.d_model, width, bias=False)
        self.conv = ShortConv(width, options.reflection_conv) if options.reflection_conv > 1 else None
        self.strength = nn.Linear(shape.d_model, self.n_kv_heads)

    def rows(self, x: Tensor, state: MixerState | None, ctx: Context) -> dict[str, Tensor]:
        narrow = x if self.narrow is None else self.narrow(x)
        raw = mixed = self.reflect(narrow)
        new = super().rows(x, state, ctx)
        if self.conv is not None:
            tail = None if state is None else state.tensors["conv"]
            mixed = self.conv(raw, tail=tail, positions=None if ctx.cu_seqlens is None else ctx.order_of(x))
            if tail is not None:
                new["conv"] = next_tail(tail, raw)
        heads = at_least_float32(mixed).unflatten(-1, (self.n_kv_heads, -1))
        unit = heads * (heads.square().sum(-1, keepdim=True) + _EPS).rsqrt()
        return {**new, "w": unit, "beta": 2 * at_least_float32(self.strength(x)).sigmoid()}

    def read(self, q: Tensor, new: dict[str, Tensor], state: MixerState | None) -> tuple[Tensor, dict[str, Tensor]]:
        if not q.numel():
            return LaidOut(q, new["k"], new["v"]).no_outputs(), {}
        with torch.autocast(q.device.type, enabled=False):
            if state is None:
                forget = new.get("forget")
                decays = None if forget is None else Decays(new=running(forget), past=forget[:, :0].double())
                return path_attention(q, new, None, decays=decays, keep=False)[0], {}
            return self._read_after(q, new, state)

    def _read_after(self, q: Tensor, new: dict[str, Tensor], state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        held, index = state.most, token_indices(state, q.shape[1])
        k, v = (state.tensors[name][:, :held] for name in ("k", "v"))
        kept, decays = {name: state.tensors[name] for name in ("k", "v")}, None
        if "forget" in new:
            kept["forget"] = write_rows(state.tensors["forget"], index, new["forget"])
            sums = running(kept["forget"][:, : held + q.shape[1]])
            of_new = sums.gather(1, index[..., None].expand(-1, -1, sums.shape[2]))
            decays = Decays(new=of_new, past=sums[:, :held])
        o, moved = path_attention(q, new, Moved(k=k, v=v, lengths=state.lengths), decays=decays)
        assert moved is not None
        rows = torch.arange(held, device=q.device).expand(len(q), -1)
        keys = write_rows(kept["k"], rows, moved[:, :held]) if held else kept["k"]
        kept["k"] = write_rows(keys, index, moved[:, held:])
        kept["v"] = write_rows(kept["v"], index, new["v"])
        return o, {**kept, **({"conv": new["conv"]} if "conv" in new else {})}
