"""The layers of full attention whose core asks more of a token than a query, a key and a value."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.host import readable
from archsearch.ops.padded import PaddedRows

from .options import FullOptions
from .weights import weighing, weighted_attention


class RowsAttention(AttentionMixer):
    """A token leaves a row of each of some tensors for later ones: a subclass says which, by `rows`, and what a token
    makes of those before it, by `read`. Packed sequences are read as rows of one batch."""

    def __init__(self, plugin: MixerPlugin[Any], options: FullOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(
            plugin,
            options,
            shape,
            layer,
            rope=options.rope,
            rope_base=options.rope_base,
            qk_norm=options.qk_norm,
            n_kv_heads=options.n_kv_heads,
        )
        self.forget = nn.Linear(shape.d_model, self.n_heads) if options.forgets else None
        if options.output_gate:
            self.add_gate()

    def rows(self, x: Tensor, state: MixerState | None, ctx: Context) -> dict[str, Tensor]:
        """Rows of tokens `[B, T, D]` beside their keys and values, `[B, T, ...]` by name."""
        return {} if self.forget is None else {"forget": F.logsigmoid(at_least_float32(self.forget(x)))}

    def read(self, q: Tensor, new: dict[str, Tensor], state: MixerState | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs `[B, T, Hq, D]` of queries `[B, T, Hq, D]` and new rows, "k" and "v" among them, after a state or
        at the start of sequences; and the tensors of the state with them."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        empty = state is None
        state = self.state_for(x, state, ctx)
        if state is not None:
            if not empty:
                state.check_room(x.shape[1], ctx.held)
            return self._after(x, state, ctx)
        q, new = self._tokens(x, None, ctx)
        if ctx.cu_seqlens is None:
            o, _ = self.read(q, new, None)
        else:
            places = PaddedRows.of(ctx.cu_seqlens, x.shape[1])
            padded, _ = self.read(places.pad(q), {name: places.pad(rows) for name, rows in new.items()}, None)
            o = places.unpad(padded)
        return self.output(self.gated(o, x)), None

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On a card, and inside `torch.compile`, it is the caller who keeps within the
        capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        y, after = self._after(x_t[:, None], state, ctx)
        return y[:, 0], after

    def _after(self, x: Tensor, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        q, new = self._tokens(x, state, ctx)
        o, tensors = self.read(q, new, state)
        return self.output(self.gated(o, x)), state.after({**state.tensors, **tensors}, x.shape[1])

    def _tokens(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v = self.project(x, ctx.positions_of(x, None if state is None else state.lengths))
        return q, {"k": k, "v": self.mix_values(v, ctx), **self.rows(x, state, ctx)}


def order_in(q: Tensor, state: MixerState | None) -> Tensor:
    """The place `[B, T]` of each query `[B, T, ...]` in its sequence, at its start or after a state."""
    if state is not None:
        return token_indices(state, q.shape[1])
    return torch.arange(q.shape[1], device=q.device).expand(len(q), -1)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def written(new: dict[str, Tensor], state: MixerState) -> dict[str, Tensor]:
    """The tensors of the state with new rows after its lengths."""
    tokens = next(iter(new.values())).shape[1]
    index = token_indices(state, tokens)
    return {name: write_rows(state.tensors[name], index, rows) for name, rows in new.items()}


class WeightedAttention(RowsAttention):
    """Forgetting, sigmoid and stick-breaking attention over a cache of keys, values and, to forget, gates."""

    def __init__(self, plugin: MixerPlugin[Any], options: FullOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.weigh = weighing(options.weighting, options.sigmoid_length)

    def read(self, q: Tensor, new: dict[str, Tensor], state: MixerState | None) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, seen = {}, new
        order = order_in(q, state)
        if state is not None:
            tensors = written(new, state)
            seen = {name: rows[:, : state.most + q.shape[1]] for name, rows in tensors.items()}
        k, v = (seen[name].to(q.dtype) for name in ("k", "v"))
        with torch.autocast(q.device.type, enabled="forget" not in seen and torch.is_autocast_enabled(q.device.type)):
            return weighted_attention(q, k, v, order, self.weigh, log_forget=seen.get("forget")), tensors
