"""Mixture of memories: states among which tokens are routed, each written by keys and values of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.ops.cache import write_rows

from ..core import Call
from ..layer import LinearMixer
from ..options import LinearOptions
from ..tokens import Tokens
from .routes import MemoryRows, Router, Routes


class _Projected(NamedTuple):
    """Tokens `[N, D]`, their queries before the convolution `[N, H K]`, and the features of the output gate."""

    x: Tensor
    q: Tensor
    gate: Tensor


class MemoriesMixer(LinearMixer):
    """Of M memories each token writes and reads a few, and a shared one, the last, where there is one (MoM, arXiv
    2502.13685, section 3): o_t = sum_m w_t^m S_t^m q_t, S^m as the layer of one state has it for the tokens of m alone.

    Keys, values and gates are projections of each memory, queries and output are shared. The tokens of a memory are a
    sequence of their own: its convolution, its chunks and its decay count them alone.
    """

    def __init__(
        self, plugin: MixerPlugin[LinearOptions], options: LinearOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.routed, self.memories = options.memories, options.memories + options.shared_memory
        channels, gate, *gates, _ = self.sizes
        self.query = self.heads * self.key_dim
        self.parts = [channels - self.query, *gates]
        self.proj = nn.Linear(shape.d_model, self.query + gate, bias=False)
        bound = shape.d_model**-0.5
        written = torch.empty(self.memories, sum(self.parts), shape.d_model).uniform_(-bound, bound)
        self.written = nn.Parameter(written)
        self.router = Router(shape.d_model, options.memories, options.memories_used)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        given = self._projected(x.flatten(0, 1))
        sequence, count = _sequences(x, ctx)
        routes, tensors = self.router(given.x, ctx), []
        read: Tensor | float = 0.0
        for first, last, met in self._shares(routes):
            rows = MemoryRows.of(met, sequence, count, last - first, x.shape[1])
            o, after = self._run(given, rows, state, (first, last))
            read = read + rows.scatter(o)
            tensors.append(after)
        y = self._written_out(read, given.gate, x)
        if state is None:
            return y, None
        kept = {name: torch.cat([after[name] for after in tensors], dim=1) for name in state.tensors}
        return y, state.after(kept, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the memories that it meets."""
        given, routes = self._projected(x_t), self._all(self.router(x_t, ctx))
        batch, slots = routes.memory.shape
        q = given.q[:, None].expand(-1, slots, -1)
        kv, *gates = torch.split(self._written_by(x_t, routes.memory), self.parts, dim=-1)
        joined = torch.cat((q, kv), dim=-1).flatten(0, 1)[:, None]  # [B S, 1, C]
        tensors = dict(state.tensors)
        tail = self._tails(state, (0, self.memories))
        if tail is not None:
            tail = tail.unflatten(0, (batch, -1))[_index(routes), routes.memory].flatten(0, 1)
        mixed, tail = self._mix(joined, tail, None)
        decay, write = (gate.flatten(0, 1)[:, None] for gate in gates)
        tokens, _ = self._made(mixed, decay, write)
        before = state.tensors["recurrent"][_index(routes), routes.memory].flatten(0, 1)
        o, after = self.core.step(tokens.only(), Call(state={"recurrent": before[:, None]}))
        new = {"recurrent": after["recurrent"].unflatten(0, (batch, slots))[:, :, 0]}
        tensors["recurrent"] = write_rows(tensors["recurrent"], routes.memory, new["recurrent"])
        if tail is not None:
            whole = tensors["conv"].unflatten(1, (self.memories, -1))
            rows = write_rows(whole, routes.memory, tail.unflatten(0, (batch, slots)))
            tensors["conv"] = rows.flatten(1, 2)
        read = (o.unflatten(0, (batch, slots)) * routes.weight[..., None, None].to(o.dtype)).sum(1)
        return self._written_out(read, given.gate, x_t[:, None])[:, 0], state.after(tensors, 1)

    def _projected(self, x: Tensor) -> _Projected:
        q, gate = torch.split(self.proj(x), [self.query, self.proj.out_features - self.query], dim=-1)
        return _Projected(x, q, gate)

    def _shares(self, routes: Routes) -> list[tuple[int, int, Routes]]:
        """Runs of memories that are worked on together, the first and the one after the last, with their routes."""
        shares = [(0, self.routed, routes)]
        if self.memories > self.routed:
            shares.append((self.routed, self.memories, _one(routes)))
        return shares

    def _all(self, routes: Routes) -> Routes:
        """The routes with the shared memory."""
        if self.memories == self.routed:
            return routes
        shared = _one(routes)
        memory = torch.cat((routes.memory, shared.memory + self.routed), dim=1)
        return Routes(memory=memory, weight=torch.cat((routes.weight, shared.weight), dim=1))

    def _run(
        self, given: _Projected, rows: MemoryRows, state: MixerState | None, memories: tuple[int, int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the tokens of some memories read, `[G, L, H, V]`, and these memories' share of the state after them."""
        weights = self.written[slice(*memories)]
        count = len(weights)
        x = rows.gather(given.x).unflatten(0, (-1, count))  # [sequences, M, L, D]
        made = torch.einsum("smld,mfd->smlf", x, weights.to(x.dtype)).flatten(0, 1)
        kv, decay, write = torch.split(made, self.parts, dim=-1)
        qkv = torch.cat((rows.gather(given.q), kv), dim=-1)
        tail = None if state is None else self._tails(state, memories)
        ends = None if tail is None else _tail_after(tail, qkv, rows.counts)
        mixed, _ = self._mix(qkv, tail, None)
        tokens = _only_filled(self._made(mixed, decay, write)[0], rows.filled)
        size = _chunk_size(rows.longest)
        if state is None:
            return self.core(tokens, Call(chunk_size=size))[0], {}
        before = state.tensors["recurrent"][:, slice(*memories)].flatten(0, 1)
        o, after = self.core(tokens, Call(state={"recurrent": before[:, None]}, chunk_size=size))
        kept = {"recurrent": after["recurrent"][:, 0].unflatten(0, (-1, count))}
        if ends is not None:
            kept["conv"] = ends.unflatten(0, (-1, count)).flatten(1, 2)
        return o, kept

    def _tails(self, state: MixerState, memories: tuple[int, int]) -> Tensor | None:
        """The convolution's last inputs of some memories, `[B M, width - 1, C]`."""
        if "conv" not in state.tensors:
            return None
        tails = state.tensors["conv"].unflatten(1, (self.memories, -1))
        some: Tensor = tails[:, slice(*memories)].flatten(0, 1)
        return some

    def _written_by(self, x: Tensor, memory: Tensor) -> Tensor:
        """What tokens `[B, D]` write to memories `[B, S]`, `[B, S, F]`: by weights that are gathered, or, where tokens
        are many, by all weights."""
        weights = self.written.to(x.dtype)
        if memory.numel() <= self.memories:
            return torch.einsum("bd,bsfd->bsf", x, weights[memory])
        every = torch.einsum("bd,mfd->bmf", x, weights)
        return every.gather(1, memory[..., None].expand(-1, -1, every.shape[-1]))

    def _written_out(self, read: Tensor | float, gate: Tensor, x: Tensor) -> Tensor:
        """What tokens read `[N, H, V]`, through norm, gate and projection, as `x` `[B, T, D]` is."""
        assert isinstance(read, Tensor)
        o = read.to(x.dtype).unflatten(0, x.shape[:2])
        return self._gated(o, gate.unflatten(0, x.shape[:2]))


def _chunk_size(longest: int) -> int:
    """Tokens a chunk: the most of which rows leave at most a quarter empty, from 64 down to 16."""
    return next((size for size in (64, 32) if -longest % size <= longest / 4), 16)


def _one(routes: Routes) -> Routes:
    """Every token to memory 0, as it is."""
    return replace(routes, memory=torch.zeros_like(routes.memory[:, :1]), weight=torch.ones_like(routes.weight[:, :1]))


def _index(routes: Routes) -> Tensor:
    return torch.arange(len(routes.memory), device=routes.memory.device)[:, None]


def _sequences(x: Tensor, ctx: Context) -> tuple[Tensor, int]:
    """The sequence of each token of `x` `[B, T, D]`, `[B T]`, and how many there are."""
    batch, length = x.shape[:2]
    if ctx.cu_seqlens is None:
        return torch.arange(batch, device=x.device).repeat_interleave(length), batch
    bounds = ctx.cu_seqlens.to(x.device)
    return torch.searchsorted(bounds[1:], torch.arange(length, device=x.device), right=True), len(bounds) - 1


def _only_filled(tokens: Tokens, filled: Tensor) -> Tokens:
    """Tokens `[G, L, ...]` of which those that are not there leave the state alone."""
    q, k, v, log_decay, beta = tokens.flat
    if log_decay is not None:
        log_decay = log_decay.expand(*filled.shape, -1) if log_decay.dim() == 1 else log_decay
        log_decay = log_decay.masked_fill(~filled.view(*filled.shape, *[1] * (log_decay.dim() - 2)), 0.0)
    beta = None if beta is None else beta * filled[..., None]
    return Tokens(q, k, v * filled[..., None, None], log_decay=log_decay, beta=beta)


def _tail_after(tail: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """The last inputs `[G, R, C]` of rows `[G, L, C]` of which ``counts`` `[G]` places are filled."""
    joined = torch.cat((tail, x.to(tail.dtype)), dim=1)
    places = counts[:, None] + torch.arange(tail.shape[1], device=x.device)
    return joined.gather(1, places[..., None].expand(-1, -1, tail.shape[-1]))
