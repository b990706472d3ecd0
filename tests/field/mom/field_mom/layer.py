"""The layer of a mixture of memories. In shapes N is all tokens of a batch, S the memories that one token meets (the
shared one is the last), G the subsequences: one for each sequence and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.cache import write_rows

from . import CHUNK

if TYPE_CHECKING:
    from . import MomOptions


@dataclass(frozen=True, kw_only=True)
class _Routes:
    """Of each token the memories that it meets `[N, S]`, and their weights `[N, S]`."""

    memory: Tensor
    weight: Tensor


class MixtureOfMemories(Mixer):
    """By chunks of each memory's subsequence; one token at a time by the memories that it meets."""

    balance_weight = 0.01

    def __init__(self, plugin: MixerPlugin[Any], options: MomOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.routed, self.top_k, self.shared = options.memories, options.top_k, options.shared
        self.memories = options.memories + options.shared
        width, d_model = shape.n_heads * shape.head_dim, shape.d_model
        self.router = nn.Linear(d_model, self.routed, bias=False) if self.routed > 1 else None
        self.q, self.out = nn.Linear(d_model, width, bias=False), nn.Linear(width, d_model, bias=False)
        self.kv = nn.Parameter(torch.randn(self.memories, d_model, 2 * width) * d_model**-0.5)
        self.norm = nn.Parameter(torch.ones(shape.head_dim))

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is not None and ctx.cu_seqlens is not None:
            raise SpecError("packed sequences (cu_seqlens) cannot share a state: give each sequence a row of the batch")
        if state is not None:
            state.check_room(x.shape[1], ctx.held)
        flat, begins = x.flatten(0, 1), ctx.order_of(x) == 0
        routes = self._route(flat, ctx)
        sequence = begins.flatten().cumsum(0) - 1
        before = self._before(x, sequence) if state is None else state.tensors["memories"].flatten(0, 1)
        read, after = self._read(flat, routes, sequence, before)
        y = self._output(read, x.dtype).view_as(x)
        if state is None:
            return y, None
        return y, state.after({"memories": after.view_as(state.tensors["memories"])}, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token `[B, D]` to `[B, D]`, by the memories that it meets."""
        state.check_room(1, ctx.held)
        routes, memories = self._route(x_t, ctx), state.tensors["memories"]
        q, (k, v) = self._heads(self.q(x_t), memories.dtype), self._written(x_t, routes, memories.dtype)
        met = memories[torch.arange(len(x_t), device=x_t.device)[:, None], routes.memory]  # [B, S, H, D, D]
        met = met + k[..., None] * v[..., None, :]
        read = torch.einsum("bhk,bshkv,bs->bhv", q, met, routes.weight.to(met.dtype))
        tensors = {"memories": write_rows(memories, routes.memory, met)}
        return self._output(read, x_t.dtype), state.after(tensors, 1)

    def _route(self, x: Tensor, ctx: Context) -> _Routes:
        """Of tokens `[N, D]`; adds the balance loss in training."""
        count = len(x)
        if self.router is None:
            memory, weight = x.new_zeros(count, 1, dtype=torch.int64), x.new_ones(count, 1, dtype=torch.float32)
        else:
            scores = self.router(x).float().softmax(-1)
            weight, memory = scores.topk(self.top_k, -1)
            weight = weight / weight.sum(-1, keepdim=True)
            if self.training and count:
                load = torch.bincount(memory.flatten(), minlength=self.routed) * self.routed / memory.numel()
                ctx.add_loss("mom_balance", self.balance_weight * (load * scores.mean(0)).sum())
        if self.shared:
            memory, weight = F.pad(memory, (0, 1), value=self.routed), F.pad(weight, (0, 1), value=1.0)
        return _Routes(memory=memory, weight=weight)

    def _before(self, x: Tensor, sequence: Tensor) -> Tensor:
        """Empty memories `[G, H, D, D]`."""
        count = int(sequence[-1]) + 1 if sequence.numel() else 0
        dim, dtype = self.shape.head_dim, torch.promote_types(x.dtype, torch.float32)
        return x.new_zeros(count * self.memories, self.shape.n_heads, dim, dim, dtype=dtype)

    def _read(self, x: Tensor, routes: _Routes, sequence: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """What tokens `[N, D]` read `[N, H, D]`, and the memories after them, like `before` `[G, H, D, D]`."""
        group = (sequence[:, None] * self.memories + routes.memory).flatten()  # [N S]
        order = group.argsort(stable=True)
        counts = torch.bincount(group, minlength=len(before))
        group = group[order]
        place = torch.arange(len(group), device=x.device) - (counts.cumsum(0) - counts)[group]
        token = order // routes.memory.shape[1]
        longest = int(counts.max()) if counts.numel() else 0
        q = self._heads(self.q(x), before.dtype)[token]
        k, v = (rows.flatten(0, 1)[order] for rows in self._written(x, routes, before.dtype))
        padded = (rows.new_zeros(len(before), longest, *rows.shape[1:]) for rows in (q, k, v))
        q, k, v = (rows.index_put((group, place), new) for rows, new in zip(padded, (q, k, v), strict=True))
        read, after = _linear_attention(q, k, v, before)
        weighted = read[group, place] * routes.weight.flatten()[order, None, None].to(read.dtype)
        return read.new_zeros(len(x), *read.shape[2:]).index_add(0, token, weighted), after

    def _written(self, x: Tensor, routes: _Routes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values `[N, S, H, D]` that tokens `[N, D]` write to the memories that they meet."""
        kv = x.new_zeros(*routes.memory.shape, self.kv.shape[-1])
        for memory in range(self.memories):
            at = (routes.memory == memory).nonzero(as_tuple=True)
            kv = kv.index_put(at, (x[at[0]] @ self.kv[memory].to(x.dtype)).to(kv.dtype))
        k, v = (self._heads(part, dtype) for part in kv.chunk(2, -1))
        return k, v

    def _heads(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.unflatten(-1, (self.shape.n_heads, -1)).to(dtype)

    def _output(self, read: Tensor, dtype: torch.dtype) -> Tensor:
        normed = F.rms_norm(read, (read.shape[-1],), self.norm.to(read.dtype), 1e-6)
        out: Tensor = self.out(normed.flatten(-2).to(dtype))
        return out


def _linear_attention(q: Tensor, k: Tensor, v: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} + k_t v_t^T, o_t = S_t^T q_t over `[G, L, H, D]` from `before` `[G, H, D, D]`: outputs, and the
    last S. Rows of zeros write nothing."""
    length = q.shape[1]
    size = max(1, min(CHUNK, length))
    q, k, v = (
        F.pad(rows, (0, 0, 0, 0, 0, -length % size)).unflatten(1, (-1, size)).transpose(2, 3) for rows in (q, k, v)
    )  # [G, chunks, H, size, D]
    writes = k.mT @ v
    states = before[:, None] + writes.cumsum(1) - writes  # before each chunk
    o = q @ states + (q @ k.mT).tril() @ v
    return o.transpose(2, 3).flatten(1, 2)[:, :length], before + writes.sum(1)
