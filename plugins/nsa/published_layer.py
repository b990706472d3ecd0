"""The layer of native sparse attention as its paper has it, and its cache."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import MixerState
from archsearch.model.attention import token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.cached import cached_attention
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.rings import in_order, laid_out, written
from archsearch.ops.softmax import masked_attention, scale_of

from .compress import BlockNetwork, Compress, compressed, means, write_compressed
from .layer import NsaAttention
from .ops import gated_sum
from .options import NsaOptions
from .published import compressed_and_selected, near, one_token
from .triton.table import TABLE

COMPRESSED, SELECTED, NEAR = range(3)
"""Branches, in the order of their gates, and of their key heads where each has its own."""


class PublishedNsa(NsaAttention):
    """Blocks that are compressed by a network, overlap or are not those that are chosen; branches that have keys and
    values of their own where there is a `more`, in the order of the gates.

    ``k_block`` and ``v_block`` keep what is compressed, written by the token that completes it; ``k`` and ``v`` are
    those of the selection. Branches of their own keep of the window its rows alone, in a ring, and of what is to be
    compressed the rows that are not yet.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        width, heads = shape.head_dim, shape.n_kv_heads
        self.more = nn.Linear(shape.d_model, 4 * heads * width, bias=False) if options.branch_kv else None
        learned = options.compress == "mlp"
        self.key_network, self.value_network = (
            BlockNetwork(self.sizes.of, width) if learned else None for _ in range(2)
        )

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q with gates `[B, T, Hq, D + 3]`, k and v `[B, T, Hkv or 3 Hkv, D]`."""
        q, k, v = super().project(x, positions)
        if self.more is None:
            return q, k, v
        keys, values = self.more(x).unflatten(-1, (2, 2, -1, self.head_dim)).unbind(2)
        keys = self.rotary(positions, keys.flatten(2, 3)).unflatten(2, (2, -1))
        return q, _between(keys, k), _between(values, v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        q, gates = torch.split(q, [self.head_dim, 3], dim=-1)
        first, kept, last = zip(*map(self._branches, (k, v)), strict=True)
        laid = LaidOut(q, *kept, cu_seqlens=cu_seqlens)
        return laid.each_apart(TABLE.op, self._sequence, gates, *first, *last)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        tensors, count = dict(state.tensors), k.shape[1]
        order = token_indices(state, count)
        for name, new in (("k", k), ("v", v)):
            raw, kept, last = self._branches(new)
            tensors[name] = write_rows(tensors[name], order, kept)
            rows, start = tensors[name], torch.zeros_like(state.lengths)
            if self.more is not None:
                ring = state.tensors[f"{name}_raw"]
                rows, start = in_order(ring, raw, state.lengths), state.lengths - ring.shape[1]
                tensors[f"{name}_raw"] = written(ring, raw, state.lengths)
                tensors[f"{name}_near"] = written(tensors[f"{name}_near"], last, state.lengths)
            block = f"{name}_block"
            tensors[block] = write_compressed(
                tensors[block], rows, start, state.lengths, count, self.sizes, self._compress(name)
            )
        return tensors

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        q, gates = torch.split(q, [self.head_dim, 3], dim=-1)
        scale, after = scale_of(q, None), state.lengths + q.shape[1]
        if not q.shape[1]:
            return q, dict(state.tensors)
        if q.shape[1] > 1:
            third = self._near(q, k, v, state, scale)  # before the ring is written over
            tensors = self.remember(k, v, state)
            laid = LaidOut(q, *self.filled(tensors, state, q), lengths=after)
            blocks = (tensors[f"{name}_block"].to(q.dtype) for name in "kv")
            both = laid.each_apart(TABLE.op, partial(self._continued, scale=scale), *blocks)
            first, second = both.chunk(2, dim=-1)
            return gated_sum(gates, first, second, third), tensors
        tensors = self.remember(k, v, state)
        keys, values = tensors["k_block"], tensors["v_block"]
        step = one_token(q[:, 0], tensors["k"], tensors["v"], keys, values, after, sizes=self.sizes, scale=scale)
        first, second = (o[:, None] for o in step)
        if self.more is not None:
            third = cached_attention(q[:, 0], tensors["k_near"], tensors["v_near"], after, scale=scale)[:, None]
        else:
            third = self._last_rows(q, tensors, after, scale)
        return gated_sum(gates, first, second, third), tensors

    def _sequence(self, q: Tensor, k: Tensor, v: Tensor, gates: Tensor, *others: Tensor) -> Tensor:
        """Outputs of whole sequences; `others` are keys and values of what is compressed, and of the window."""
        raw_keys, raw_values, near_keys, near_values = others
        scale = scale_of(q, None)
        keys, values = (
            compressed(rows, self.sizes, self._compress(name)) for name, rows in (("k", raw_keys), ("v", raw_values))
        )
        first, second = compressed_and_selected(q, k, v, keys, values, sizes=self.sizes, scale=scale)
        return gated_sum(gates, first, second, near(q, near_keys, near_values, window=self.sizes.window, scale=scale))

    def _continued(self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> Tensor:
        """The first two branches side by side, `[B, T, Hq, 2 D]`."""
        complete = self.sizes.complete(k.shape[1])
        keys, values = keys[:, :complete], values[:, :complete]
        return torch.cat(compressed_and_selected(q, k, v, keys, values, sizes=self.sizes, scale=scale), dim=-1)

    def _near(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState, scale: float) -> Tensor:
        """The window's branch of tokens after a state that does not hold them yet."""
        window = partial(near, window=self.sizes.window, scale=scale)
        if self.more is None:
            order = token_indices(state, k.shape[1])
            most = state.most + k.shape[1]
            caches = (
                write_rows(state.tensors[name], order, new)[:, :most].to(q.dtype) for name, new in (("k", k), ("v", v))
            )
            return LaidOut(q, *caches, lengths=state.lengths + k.shape[1]).each_apart(TABLE.op, window)
        held = state.lengths.clamp(max=state.tensors["k_near"].shape[1])
        rows = (
            laid_out(state.tensors[f"{name}_near"], self._branches(new)[NEAR], held, state.lengths)
            for name, new in (("k", k), ("v", v))
        )
        return LaidOut(q, *rows, lengths=held + k.shape[1]).each_apart(TABLE.op, window)

    def _last_rows(self, q: Tensor, tensors: dict[str, Tensor], lengths: Tensor, scale: float) -> Tensor:
        """The window's branch of one token, which reads the rows of the window alone, `[B, 1, Hq, D]`."""
        steps = torch.arange(min(self.sizes.window, int(lengths.max())), device=q.device)
        rows = lengths[:, None] - 1 - steps
        sequence = torch.arange(len(q), device=q.device)[:, None]
        keys, values = (tensors[name][sequence, rows.clamp(min=0)].to(q.dtype).flip(1) for name in "kv")
        visible = (rows >= 0).flip(1)
        return masked_attention(q, keys, values, visible[:, None], scale)

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys or values `[B, T, Hkv or 3 Hkv, D]` of each branch."""
        if self.more is None:
            return x, x, x
        first, second, third = x.chunk(3, dim=2)
        return first, second, third

    def _compress(self, name: str) -> Compress:
        return (self.key_network if name == "k" else self.value_network) or means


def _between(outer: Tensor, inner: Tensor) -> Tensor:
    """Heads `[B, T, 3 Hkv, D]`: of `outer` `[B, T, 2, Hkv, D]` the first, `inner` `[B, T, Hkv, D]`, the second."""
    return torch.cat((outer[:, :, 0], inner, outer[:, :, 1]), dim=2)
