"""The layer of heavy-hitter attention, and its cache: the heavy tokens, then a ring of the recent ones.

The first ``heavy + recent`` tokens lie in order, which is that layout when there are so many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.model.attention import AttentionMixer
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import causal_mask, explicit_attention

if TYPE_CHECKING:
    from . import H2oOptions


class EvictingAttention(AttentionMixer):
    """What is kept is each key head's own choice."""

    def __init__(self, plugin: MixerPlugin[Any], options: H2oOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.heavy, self.recent, self.kept = options.heavy, options.recent, options.kept

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is None:
            q, k, v = self.project(x, ctx.positions_of(x))
            laid = LaidOut(q, k, v, cu_seqlens=ctx.cu_seqlens)
            return self.output(laid.each_apart("h2o", _causal)), None
        o, rows, scores = self._read(x, state, ctx)
        return self.output(o), state.after(self._chosen(rows, scores, state), x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`; of keys and values at most two rows are written."""
        o, rows, scores = self._read(x_t[:, None], state, ctx)
        return self.output(o)[:, 0], state.after(self._replaced(rows, scores, state), 1)

    def _read(self, x: Tensor, state: MixerState, ctx: Context) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Outputs `[B, T, Hq, D]`; the filled rows and the new ones `[B, S, Hkv, D]`; their scores `[B, S, Hkv]`."""
        state.check_room(x.shape[1], ctx.held)
        q, *new = self.project(x, ctx.positions_of(x, state.lengths))
        filled, named = min(state.most, self.kept), zip(("k", "v"), new, strict=True)
        rows = {name: torch.cat((state.tensors[name][:, :filled].to(z.dtype), z), 1) for name, z in named}
        held = torch.arange(filled, device=x.device) < state.lengths[:, None, None]
        own = causal_mask(x.shape[1], x.shape[1], x.device)
        visible = torch.cat((held.expand(-1, x.shape[1], -1), own.expand(len(x), -1, -1)), dim=-1)
        grouped = torch.unflatten(q.float(), 2, (self.n_kv_heads, -1))
        logits = torch.einsum("bthgd,bshd->bthgs", grouped, rows["k"].float()) * self.head_dim**-0.5
        weights = logits.masked_fill(~visible[:, :, None, None], -torch.inf).softmax(-1)
        o = torch.einsum("bthgs,bshd->bthgd", weights, rows["v"].float()).flatten(2, 3).to(q.dtype)
        before = F.pad(state.tensors["score"][:, :filled], (0, 0, 0, x.shape[1]))
        return o, rows, before + weights.detach().sum((1, 3)).transpose(1, 2)

    def _replaced(self, rows: dict[str, Tensor], scores: Tensor, state: MixerState) -> dict[str, Tensor]:
        """The state's tensors with one more token, in the row of the one that leaves the recent ones."""
        seen, batch = state.lengths[:, None], torch.arange(len(scores), device=scores.device)[:, None]
        slot = torch.where(seen < self.kept, seen, self._ring_row(seen))
        state.tensors["score"][:, : scores.shape[1] - 1] = scores[:, :-1]
        least, worst = state.tensors["score"][:, : self.heavy].min(1)
        moves = (seen >= self.kept) & (state.tensors["score"][batch, slot][:, 0] > least)
        head, tensors = torch.arange(self.n_kv_heads, device=scores.device), {}
        goal = torch.where(moves, worst, slot) * self.n_kv_heads + head  # of the rows of each head, [B, Hkv]
        for name, new in {**rows, "score": scores}.items():
            old = state.tensors[name]
            moved = write_rows(old.flatten(1, 2), goal, old[batch, slot, head])
            written = write_rows(moved, slot * self.n_kv_heads + head, new[:, -1])
            tensors[name] = written.unflatten(1, (-1, self.n_kv_heads))
        return tensors

    def _chosen(self, rows: dict[str, Tensor], scores: Tensor, state: MixerState) -> dict[str, Tensor]:
        """The state's tensors with T more tokens, cut to what is kept."""
        size, place = state.tensors["score"].shape[1], self._places(scores, state)
        batch, head = (torch.arange(extent, device=scores.device) for extent in (len(scores), self.n_kv_heads))
        tensors = {}
        for name, new in {**rows, "score": scores}.items():
            old = state.tensors[name]
            room = old.new_zeros(len(old), size + 1, *old.shape[2:])  # the last row takes what is dropped
            tensors[name] = room.index_put((batch[:, None, None], place, head), new.to(old.dtype))[:, :size]
        return tensors

    def _places(self, scores: Tensor, state: MixerState) -> Tensor:
        """The rows `[B, S, Hkv]` where the filled rows and T new tokens come to lie, past the last for the dropped."""
        seen, filled = state.lengths[:, None], min(state.most, self.kept)
        row = torch.arange(filled, device=scores.device)
        turn = seen - 1 - (seen - 1 - row) % self.recent  # the last token that took a row of the ring
        held = torch.where(seen <= self.kept, row, torch.where(row < self.heavy, -1, turn))
        new = seen + torch.arange(scores.shape[1] - filled, device=scores.device)
        after = new[:, -1:, None] + 1 if new.shape[1] else seen[..., None]
        order = torch.cat((held, new), 1)[..., None]  # of the token in its sequence, -1 for a heavy one
        there = torch.cat((row < seen, new >= 0), 1)[..., None]
        recent = there & (order >= after - self.recent)
        best = scores.masked_fill(~there | recent, -torch.inf).argsort(dim=1, descending=True, stable=True)
        rank, past = best.argsort(dim=1), state.tensors["score"].shape[1]
        cut = torch.where(recent, self._ring_row(order), rank.masked_fill(rank >= self.heavy, past))
        return torch.where(after <= self.kept, order.masked_fill(~there, past), cut)

    def _ring_row(self, order: Tensor) -> Tensor:
        return self.heavy + (order - self.heavy) % self.recent


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return explicit_attention(q, k, v, causal_mask(q.shape[1], k.shape[1], q.device))
