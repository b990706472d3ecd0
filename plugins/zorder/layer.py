"""The layer of attention along a Z-order curve, and its cache: small keys, values, and the sums of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.host import readable
from archsearch.ops.laid_out import packed_lengths

from .curve import neighbours, places
from .ops import cauchy_attention
from .options import ZOrderOptions


class ZOrderAttention(Mixer):
    """No gradient passes the choice; keys and queries learn by the weights of what is seen, and by the mean of all."""

    def __init__(self, plugin: MixerPlugin[Any], options: ZOrderOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.given, self.heads, self.groups = options, shape.n_heads, shape.n_kv_heads
        self.query, self.key = (self._network(heads * options.key_dim) for heads in (self.heads, self.groups))
        self.value = nn.Linear(shape.d_model, self.groups * shape.head_dim, bias=False)
        self.out = nn.Linear(self.heads * shape.head_dim, shape.d_model, bias=False)
        self.width = nn.Parameter(torch.zeros(()))

    def _network(self, width: int) -> nn.Sequential:
        d_model, hidden = self.shape.d_model, self.given.hidden
        return nn.Sequential(nn.Linear(d_model, hidden, bias=False), nn.SiLU(), nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is not None:
            state.check_room(x.shape[1], ctx.held)
            y, tensors = self._extended(x, state, ctx)
            return y, state.after(tensors, x.shape[1])
        lengths = [x.shape[1]] if ctx.cu_seqlens is None else packed_lengths(ctx.cu_seqlens, x.shape[1])
        pieces = zip(*(one.split(lengths, dim=1) for one in self.project(x, ctx)), strict=True)
        outputs = [self._whole(q, k, v) for q, k, v in pieces if q.shape[1]]
        return torch.cat(outputs, dim=1) if outputs else 0 * x, None

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On a card, and inside `torch.compile`, it is the caller who keeps within the
        capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        y, tensors = self._extended(x_t[:, None], state, ctx)
        return y[:, 0], state.after(tensors, 1)

    def project(self, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor]:
        """q `[B, T, Hq, d]`, k `[B, T, Hkv, d]` and v `[B, T, Hkv, D]` of `x` `[B, T, D]`."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        heads = ((q, self.heads), (k, self.groups), (v, self.groups))
        made = [one.unflatten(-1, (count, -1)) for one, count in heads]
        return made[0], made[1], self.mix_values(made[2], ctx)

    def _whole(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Outputs `[B, T, D]` of whole sequences."""
        order = torch.arange(q.shape[1], device=q.device).expand(len(q), -1)
        new = torch.cat((k, v), dim=-1)
        return self._attended(q, k, v, order, self._sums(new, None))

    def _extended(self, x: Tensor, state: MixerState, ctx: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """After a state: outputs, and its tensors with the new tokens."""
        q, k, v = self.project(x, ctx)
        if not x.shape[1]:
            return 0 * x, state.tensors
        order, kept = token_indices(state, x.shape[1]), state.tensors
        tensors = {name: write_rows(kept[name], order, new) for name, new in (("k", k), ("v", v))}
        sums = self._sums(torch.cat((k, v), dim=-1), kept["sum"])
        keys, values = (tensors[name][:, : state.most + x.shape[1]].to(x.dtype) for name in ("k", "v"))
        return self._attended(q, keys, values, order, sums), {**tensors, "sum": sums[:, -1:].to(kept["sum"].dtype)}

    def _sums(self, new: Tensor, before: Tensor | None) -> Tensor:
        """Sums `[B, T, Hkv, d + D]` of keys and values up to each token, in float32 at least."""
        sums = new.to(torch.promote_types(new.dtype, torch.float32)).cumsum(1)
        return sums if before is None else sums + before

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, order: Tensor, sums: Tensor) -> Tensor:
        """Outputs `[B, T, D]` of queries at `order` `[B, T]` over k and v `[B, S, Hkv, ...]` of all tokens so far."""
        means = (sums / (order + 1)[..., None, None]).to(q.dtype).tensor_split([k.shape[-1]], dim=-1)
        chosen = self._chosen(q.detach(), k.detach(), order)
        o = cauchy_attention(q, (k, v), (means[0], means[1]), chosen, self.width.sigmoid())
        out: Tensor = self.out(o.flatten(2))
        return out

    @torch.no_grad()
    def _chosen(self, q: Tensor, k: Tensor, order: Tensor) -> Tensor:
        """Tokens `[B, Hq, T, R]` that each query sees, -1 for none."""
        chunk, count = self.given.chunk, min(self.given.top_k, k.shape[1])
        asked, known = (places(x, self.given.bits).transpose(1, 2) for x in (q, k))
        near = neighbours(asked, known, order, chunk, count)
        if not self.given.own:
            return near
        own = (order // chunk * chunk)[..., None] + torch.arange(chunk, device=q.device)
        own = own.masked_fill(own > order[..., None], -1)[:, None]
        return torch.cat((near, own.expand(-1, self.heads, -1, -1)), dim=-1)
