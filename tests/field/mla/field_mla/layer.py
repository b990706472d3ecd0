"""The layer of multi-head latent attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.rotary import Rotary
from archsearch.ops.softmax import causal_mask, explicit_attention

if TYPE_CHECKING:
    from . import MlaOptions


class LatentAttention(Mixer):
    """Keys and values multiplied out over many tokens, absorbed into query and output for one."""

    def __init__(self, plugin: MixerPlugin[Any], options: MlaOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.widths = [shape.head_dim, options.rope_dim]
        self.folded = [options.kv_rank, options.rope_dim]
        self.scale = sum(self.widths) ** -0.5
        heads, width, rank = shape.n_heads, shape.head_dim, options.kv_rank
        self.query = nn.Linear(shape.d_model, heads * sum(self.widths), bias=False)
        self.fold = nn.Linear(shape.d_model, sum(self.folded), bias=False)
        self.norm = nn.RMSNorm(rank, eps=1e-6)
        self.unfold = nn.Parameter(torch.randn(2, heads, width, rank) * rank**-0.5)
        self.out = nn.Linear(heads * width, shape.d_model, bias=False)
        self.rotary = Rotary(options.rope_dim, base=options.rope_base)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is None:
            q, latent, rotated = self._project(x, ctx.positions_of(x))
            k, v = self._unfolded(latent, rotated)
            return self._output(LaidOut(q, k, v, cu_seqlens=ctx.cu_seqlens).each_apart("mla", _causal)), None
        q, after = self._remember(x, state, ctx)
        k, v = self._unfolded(*self._filled(after, q))
        o = LaidOut(q, k, v, lengths=after.lengths).each_apart("mla", _causal)
        return self._output(o), after

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, of which no key and no value is multiplied out."""
        q, after = self._remember(x_t[:, None], state, ctx)
        latent, rotated = self._filled(after, q)
        to_key, to_value = self.unfold.to(q.dtype)
        plain, turned = torch.split(q, self.widths, dim=-1)
        absorbed = torch.cat((torch.einsum("bthd,hdr->bthr", plain, to_key), turned), dim=-1)
        keys = torch.cat((latent, rotated), dim=-1)[:, :, None]
        visible = torch.arange(keys.shape[1], device=q.device) < after.lengths[:, None, None]
        mixed = explicit_attention(absorbed, keys, latent[:, :, None], visible, self.scale)
        return self._output(torch.einsum("bthr,hdr->bthd", mixed, to_value))[:, 0], after

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q `[B, T, H, D + R]`, latents `[B, T, C]` and rotated keys `[B, T, R]`."""
        q = torch.unflatten(self.query(x), -1, (-1, sum(self.widths)))
        plain, turned = torch.split(q, self.widths, dim=-1)
        q = torch.cat((plain, self.rotary(positions, turned)), dim=-1)
        latent, rotated = torch.split(self.fold(x), self.folded, dim=-1)
        return q, self.norm(latent).to(q.dtype), self.rotary(positions, rotated[:, :, None])[:, :, 0]

    def _remember(self, x: Tensor, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """q of the tokens of `x`, and the state with them."""
        state.check_room(x.shape[1], ctx.held)
        rows = ctx.order_of(x, state.lengths)
        q, *new = self._project(x, ctx.positions_of(x, state.lengths))
        named = zip(("latent", "rotated"), new, strict=True)
        tensors = {name: write_rows(state.tensors[name], rows, values) for name, values in named}
        return q, state.after(tensors, x.shape[1])

    def _filled(self, state: MixerState, q: Tensor) -> tuple[Tensor, Tensor]:
        latent, rotated = (state.tensors[name][:, : state.most].to(q.dtype) for name in ("latent", "rotated"))
        return latent, rotated

    def _unfolded(self, latent: Tensor, rotated: Tensor) -> tuple[Tensor, Tensor]:
        """k `[B, S, H, D + R]` and v `[B, S, H, D]` of latents `[B, S, C]` and rotated keys `[B, S, R]`."""
        k, v = torch.einsum("bsr,nhdr->nbshd", latent, self.unfold.to(latent.dtype))
        return torch.cat((k, rotated[:, :, None].expand(-1, -1, k.shape[2], -1)), dim=-1), v

    def _output(self, o: Tensor) -> Tensor:
        out: Tensor = self.out(o.flatten(2))
        return out


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return explicit_attention(q, k, v, causal_mask(q.shape[1], k.shape[1], q.device))
