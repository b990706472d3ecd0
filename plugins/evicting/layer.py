"""The layer of attention whose cache evicts, and its cache.

Each key head has a row for every token that it keeps, in no order: beside key and value the sum of what was attended to
it and its index in the sequence, by which the last tokens are known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.host import readable
from archsearch.ops.impl import choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.masks import earlier_in_sequence
from archsearch.ops.softmax import causal_mask, explicit_attention, masked_attention
from archsearch.ops.weights import mean_weights

from .ops import counted_attention
from .options import EvictingOptions

OP = "evicting_attention"
WHY = "scaled_dot_product_attention over whole sequences"


class EvictingAttention(AttentionMixer):
    """Whole sequences and prompts are attended to densely; what decoding keeps is ``heavy + recent`` tokens."""

    def __init__(self, plugin: MixerPlugin[Any], options: EvictingOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope, n_kv_heads=options.n_kv_heads)
        self.recent, self.kept = options.recent, options.kept

    def new_rows(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Rows of all heads side by side: each head's are written apart."""
        return Mixer.new_rows(self, shape, dtype=dtype, device=device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        explicit = choose_impl(OP, "auto", why=WHY) == "reference"

        def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if not explicit:
                return masked_attention(q, k, v)
            return explicit_attention(q, k, v, causal_mask(q.shape[1], k.shape[1], q.device))

        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart(OP, form)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is None:
            q, k, v = self.project(x, ctx.positions_of(x))
            return self.output(self.attend(q, k, self.mix_values(v, ctx), ctx.cu_seqlens)), None
        state.check_room(x.shape[1], ctx.held)
        q, k, v = self.project(x, ctx.positions_of(x, state.lengths))
        v = self.mix_values(v, ctx)
        o, tensors = self.extend(q, k, v, state) if x.shape[1] else (q, state.tensors)
        return self.output(o), state.after(tensors, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On a card, and inside `torch.compile`, it is the caller who keeps within the
        capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        x = x_t[:, None]
        q, k, v = self.project(x, ctx.positions_of(x, state.lengths))
        o, tensors = self.extend(q, k, self.mix_values(v, ctx), state)
        return self.output(o)[:, 0], state.after(tensors, 1)

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        """T more tokens, T at least 1, over what is kept and themselves; then all but what is kept is evicted."""
        kept, new = state.tensors, {"k": k, "v": v}
        filled = min(state.most, kept["k"].shape[1])
        rows = {name: torch.cat((kept[name][:, :filled].to(x.dtype), x), dim=1) for name, x in new.items()}
        held = state.lengths.clamp(max=filled)
        o, sums = counted_attention(q, rows["k"], rows["v"], held)
        sums = torch.cat((sums[:, :filled] + kept["score"][:, :filled], sums[:, filled:]), dim=1).float()
        if q.shape[1] == 1:
            return o, self._replaced(new, sums, held, state)
        order = token_indices(state, q.shape[1])[..., None].expand(-1, -1, k.shape[2]).float()
        rows |= {"score": sums, "order": torch.cat((kept["order"][:, :filled], order), dim=1)}
        return o, self._chosen(rows, held, state)

    def _replaced(self, new: dict[str, Tensor], sums: Tensor, held: Tensor, state: MixerState) -> dict[str, Tensor]:
        """The state's tensors with one more token, in a row that is free or that of the least score."""
        kept, seen, filled = state.tensors, state.lengths, sums.shape[1] - 1
        capacity, heads = kept["k"].shape[1], sums.shape[2]
        slot = seen[:, None].expand(-1, heads)
        if state.most >= self.kept:
            may_go = kept["order"][:, :filled] <= (seen - self.recent)[:, None, None]
            least = sums[:, :filled].masked_fill(~may_go, torch.inf).argmin(1)
            slot = torch.where(seen[:, None] >= self.kept, least, slot)
        scores = kept["score"].clone()
        scores[:, :filled] = torch.where(
            torch.arange(filled, device=seen.device)[:, None] < held[:, None, None], sums[:, :-1], scores[:, :filled]
        )
        order = seen[:, None, None].expand(-1, 1, heads).float()
        after = {**kept, "score": scores}
        where = slot * heads + torch.arange(heads, device=seen.device)
        for name, row in {**new, "score": sums[:, -1:], "order": order}.items():
            written = write_rows(after[name].flatten(1, 2), where, row[:, 0])
            after[name] = written.unflatten(1, (capacity, heads))
        return after

    def _chosen(self, rows: dict[str, Tensor], held: Tensor, state: MixerState) -> dict[str, Tensor]:
        """The state's tensors with what is kept of `rows` `[B, S, Hkv, ...]`: the last, and of the rest the heavy."""
        order, score = rows["order"], rows["score"]
        count = order.shape[1] - min(state.most, state.tensors["k"].shape[1])
        filled = order.shape[1] - count
        index = torch.arange(order.shape[1], device=order.device)
        there = ((index < held[:, None]) | (index >= filled))[..., None]
        after = state.lengths + count
        last = there & (order >= (after - self.recent)[:, None, None])
        worth = score.masked_fill(last, torch.inf).masked_fill(~there, -torch.inf)
        best = worth.sort(dim=1, descending=True, stable=True).indices[:, : self.kept]
        tensors = {}
        for name, new in rows.items():
            old = state.tensors[name]
            where = best.view(*best.shape, *[1] * (new.dim() - 3)).expand(*best.shape, *new.shape[3:])
            picked = new.gather(1, where).to(old.dtype)
            tensors[name] = torch.cat((picked, old[:, picked.shape[1] :]), dim=1)
        return tensors

    def attention_weights(self, x: Tensor, *, ctx: Context) -> Tensor:
        """What each token attends to, `[B, T, T]`, for a model that learns it: see `archsearch.model.recorded`."""
        q, k, _ = self.project(x, ctx.positions_of(x))
        return mean_weights(q, k, earlier_in_sequence(ctx.order_of(x)))
