"""The layer of multi-head latent attention, whose cache holds a latent and a shared key for each token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import normed, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.host import readable
from archsearch.ops.masks import earlier_in_sequence
from archsearch.ops.rotary import Rotary
from archsearch.ops.weights import mean_weights

from .ops import latent_attention, latent_attention_absorbed, multiplied_out
from .options import LatentOptions


class LatentAttention(Mixer):
    """Keys and values are multiplied out over a sequence, and absorbed for few tokens after a cache."""

    def __init__(self, plugin: MixerPlugin[Any], options: LatentOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.heads, self.width, self.rank = shape.n_heads, shape.head_dim, options.kv_rank
        asked = self.heads * (self.width + options.shared_dim)
        self.q_down = nn.Linear(shape.d_model, options.q_rank, bias=False) if options.q_rank else None
        self.q_norm = nn.RMSNorm(options.q_rank, eps=1e-6) if options.q_rank else None
        self.q_up = nn.Linear(options.q_rank or shape.d_model, asked, bias=False)
        self.kv_down = nn.Linear(shape.d_model, options.row, bias=False)
        self.kv_norm = nn.RMSNorm(options.kv_rank, eps=1e-6)
        self.kv_up = nn.Linear(options.kv_rank, 2 * self.heads * self.width, bias=False)
        self.out = nn.Linear(self.heads * self.width, shape.d_model, bias=False)
        self.rotary = Rotary(options.shared_dim, fraction=options.rope, base=options.rope_base)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        empty = state is None
        state = self.state_for(x, state, ctx)
        if state is None:
            q, rows = self.project(x, ctx.positions_of(x))
            return self.output(latent_attention(q, rows, self.up(q), cu_seqlens=ctx.cu_seqlens)), None
        held = 0 if empty else state.check_room(x.shape[1], ctx.held)
        q, rows = self.project(x, ctx.positions_of(x, state.lengths))
        if held == 0:
            o, after = latent_attention(q, rows, self.up(q)), self._remember(rows, state)
        else:
            o, after = self._extend(q, rows, state)
        return self.output(o), after

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, of which no key and no value is multiplied out. On a card, and inside
        `torch.compile`, it is the caller who keeps within the capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        x = x_t[:, None]
        o, after = self._extend(*self.project(x, ctx.positions_of(x, state.lengths)), state)
        return self.output(o)[:, 0], after

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q `[B, T, H, D + R]` and the rows `[B, T, C + R]` of `x` `[B, T, D]` at `positions` `[B, T]`."""
        low = x if self.q_down is None or self.q_norm is None else normed(self.q_norm, self.q_down(x))
        q = torch.unflatten(self.q_up(low), -1, (self.heads, -1))
        latent, shared = self.kv_down(x).tensor_split([self.rank], dim=-1)
        plain, asked = q.tensor_split([self.width], dim=-1)
        turned = self.rotary(positions, torch.cat((asked, shared[:, :, None]), dim=2))
        q = torch.cat((plain, turned[:, :, :-1]), dim=-1)
        return q, torch.cat((normed(self.kv_norm, latent), turned[:, :, -1]), dim=-1)

    def up(self, like: Tensor) -> Tensor:
        """The weights `[H, 2, D, C]` that multiply latents out, in the dtype of `like`."""
        return self.kv_up.weight.to(like.dtype).view(self.heads, 2, self.width, self.rank)

    def output(self, o: Tensor) -> Tensor:
        """Heads `[B, T, H, D]` to the model `[B, T, D]`."""
        out: Tensor = self.out(o.flatten(2))
        return out

    def attention_weights(self, x: Tensor, *, ctx: Context) -> Tensor:
        """What each token attends to, `[B, T, T]`, for a model that learns it: see `archsearch.model.recorded`."""
        q, rows = self.project(x, ctx.positions_of(x))
        return mean_weights(q, multiplied_out(rows, self.up(q))[0], earlier_in_sequence(ctx.order_of(x)))

    def _remember(self, rows: Tensor, state: MixerState) -> MixerState:
        where = token_indices(state, rows.shape[1])
        return state.after({"latent": write_rows(state.tensors["latent"], where, rows)}, rows.shape[1])

    def _extend(self, q: Tensor, rows: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """Outputs `[B, T, H, D]` of T more tokens, and the state with them, by whichever form costs less."""
        where, after = token_indices(state, q.shape[1]), self._remember(rows, state)
        filled = after.tensors["latent"][:, : after.most].to(q.dtype)
        if q.shape[1] * (self.rank - self.width) < self.rank * self.width:
            return latent_attention_absorbed(q, filled, self.up(q), where), after
        return latent_attention(q, filled, self.up(q), lengths=after.lengths), after
