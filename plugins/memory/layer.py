"""The layer of the memory mixers: projections and gates, the memory, and what is around what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.bounds import UNIT_EPS
from archsearch.ops.gated_norm import gated_norm
from archsearch.ops.padded import PaddedRows
from archsearch.ops.rotary import Rotary
from archsearch.ops.short_conv import ShortConv, next_tail

from .network import EPS, Inner
from .ops import Held, Learning, MemoryTokens, learning_memory, learning_step
from .options import MemoryOptions

_LITTLE = 0.02
"""Standard deviation of the first weights where LayerNorm follows (TTT's code)."""
_FORGETS = -4.0
"""Where the gate of forgetting starts: a share of 0.018 a token."""


class LearningMemory(Mixer):
    """A network for each head that trains on the keys and values of the tokens, and is read by their queries."""

    options: MemoryOptions

    def __init__(
        self, plugin: MixerPlugin[MemoryOptions], options: MemoryOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.heads, self.width = shape.n_heads, shape.head_dim
        values = self.heads * self.width
        gate = 0 if options.output_gate == "none" else values
        shared = options.shared_projection
        self.sizes = [(2 if shared else 3) * values, options.gates * self.heads, gate]
        self.proj = nn.Linear(shape.d_model, sum(self.sizes), bias=False)
        bias = torch.zeros(options.gates, self.heads)
        if options.forget:
            bias[-1] = _FORGETS
        self.gate_bias = nn.Parameter(bias)
        self.conv = ShortConv(options.convolved * values, options.conv) if options.conv else None
        self.conv_bias = nn.Parameter(torch.zeros(2 * values)) if shared else None
        self.rotary = Rotary(self.width, fraction=options.rope) if options.rope else None
        self.first = nn.ParameterList(self._first(rows, columns) for rows, columns in options.layers(shape))
        self.scale = nn.Parameter(torch.ones(self.heads, 1, self.width)) if options.inner_norm else None
        self.shift = nn.Parameter(torch.zeros(self.heads, 1, self.width)) if options.inner_norm else None
        self.factors = nn.Parameter(1 / torch.arange(1.0, options.mini_batch + 1)) if options.average else None
        self.norm = _norm(options.output_norm, self.width, values)
        self.out = nn.Linear(values, shape.d_model, bias=False)

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """Of the trained first weights."""
        state = super().init_state(batch, capacity, dtype=dtype, device=device)
        for index, matrix in enumerate(self.first):
            for name in ("weights", "start") if self.options.mini_batch > 1 else ("weights",):
                held = state.tensors[f"{name}{index}"]
                state.tensors[f"{name}{index}"] = matrix.detach().to(held).expand_as(held).clone()
        return state

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`, by mini-batches; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        rows = None if ctx.cu_seqlens is None else PaddedRows.of(ctx.cu_seqlens, x.shape[1])
        order = ctx.order_of(x, None if state is None else state.lengths)
        tokens, gate, tail = self._inputs(x, state, order, None if rows is None else order, ctx)
        if rows is not None:
            tokens = tokens.map(rows.pad)
        with torch.autocast(x.device.type, enabled=False):
            held = self._held(state, len(tokens.q), tokens.q.dtype)
            lengths = None if state is None else state.lengths
            o, held = learning_memory(tokens, held, self._learning(), lengths, want_state=state is not None)
        o = o if rows is None else rows.unpad(o)
        return self._output(o, gate), None if state is None else self._after(state, held, tail, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the weights themselves."""
        x = x_t[:, None]
        tokens, gate, tail = self._inputs(x, state, ctx.order_of(x, state.lengths), None, ctx)
        with torch.autocast(x.device.type, enabled=False):
            held = self._held(state, len(x), tokens.q.dtype)
            o, held = learning_step(tokens.map(lambda y: y[:, 0]), held, self._learning(), state.lengths)
        return self._output(o[:, None], gate)[:, 0], self._after(state, held, tail, 1)

    def _first(self, rows: int, columns: int) -> nn.Parameter:
        """The first weights of a matrix of every head; of their biases, zeros."""
        bias, given = int(self.options.bias), rows - int(self.options.bias)
        weights = torch.randn(self.heads, rows, columns) * (_LITTLE if self.options.inner_norm else given**-0.5)
        if bias:
            weights[:, -1] = 0.0
        return nn.Parameter(weights)

    def _inputs(
        self, x: Tensor, state: MixerState | None, order: Tensor, places: Tensor | None, ctx: Context
    ) -> tuple[MemoryTokens, Tensor, Tensor | None]:
        """The memory's tokens in float32 at least, the features of the output gate, and the convolution's tail."""
        qkv, gates, gate = torch.split(self.proj(x), self.sizes, dim=-1)
        mixed, tail = self._mix(qkv, None if state is None else state.tensors.get("conv"), places)
        mixed = F.silu(mixed) if self.options.activation == "silu" else mixed
        dtype = torch.promote_types(x.dtype, torch.float32)
        q, k, v = torch.unflatten(mixed.to(dtype), -1, (3, self.heads, self.width)).unbind(2)
        v = self.mix_values(v, ctx)
        divided = self.width
        if self.options.norm == "l2":
            q, k = (y * (y.square().sum(-1, keepdim=True) + UNIT_EPS).rsqrt() for y in (q, k))
            divided = 1
        if self.rotary is not None:
            within = order % self.options.mini_batch
            q, k = self.rotary(within, q), self.rotary(within, k)
        rate, *more = (torch.unflatten(gates.to(dtype), -1, self.gate_bias.shape) + self.gate_bias).unbind(-2)
        forgets = more.pop() if self.options.forget else None
        tokens = MemoryTokens(
            q=q,
            k=k,
            v=v,
            rate=rate.sigmoid() * (self.options.rate / divided),
            log_keep=None if forgets is None else F.logsigmoid(-forgets),
            log_momentum=F.logsigmoid(more[0]) if more else None,
        )
        return tokens, gate, tail

    def _mix(self, qkv: Tensor, tail: Tensor | None, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """q, k and v `[B, T, 3 C]` of what is projected, and the convolution's tail."""
        if self.conv is None:
            return qkv, tail
        if self.conv_bias is None:
            return self.conv(qkv, tail=tail, positions=places), None if tail is None else next_tail(tail, qkv)
        both, v = qkv.chunk(2, dim=-1)
        both = both.repeat(1, 1, 2)
        mixed = self.conv(both, tail=tail, positions=places) + self.conv_bias.to(both.dtype)
        return torch.cat((mixed, v), dim=-1), None if tail is None else next_tail(tail, both)

    def _learning(self) -> Learning:
        scale, shift = (None if x is None else x.float() for x in (self.scale, self.shift))
        inner = Inner(scale=scale, shift=shift, residual=self.options.residual, bias=self.options.bias)
        factors = None if self.factors is None else self.factors.float().clamp(min=0)
        return Learning(inner=inner, mini_batch=self.options.mini_batch, factors=factors, clip=self.options.clip)

    def _held(self, state: MixerState | None, batch: int, dtype: torch.dtype) -> Held:
        if state is None:
            first = tuple(matrix.to(dtype).expand(batch, -1, -1, -1) for matrix in self.first)
            return Held(start=first, now=first)
        now = self._read(state, "weights", dtype)
        start = self._read(state, "start", dtype) if self.options.mini_batch > 1 else now
        return Held(start=start, now=now, momentum=self._read(state, "momentum", dtype) or None)

    def _read(self, state: MixerState, name: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        names = [f"{name}{index}" for index in range(len(self.first))]
        return tuple(state.tensors[one][:, 0].to(dtype) for one in names if one in state.tensors)

    def _after(self, state: MixerState, held: Held, tail: Tensor | None, count: int) -> MixerState:
        kept = {"weights": held.now, "start": held.start, "momentum": held.momentum}
        tensors = {
            f"{name}{index}": matrix[:, None].to(state.tensors[f"{name}{index}"].dtype)
            for name, matrices in kept.items()
            for index, matrix in enumerate(matrices or ())
            if f"{name}{index}" in state.tensors
        }
        if tail is not None:
            tensors["conv"] = tail
        return state.after(tensors, count)

    def _output(self, o: Tensor, gate: Tensor) -> Tensor:
        """What was read `[B, T, H, D]` to `[B, T, D]`."""
        o = o.to(self.proj.weight.dtype)
        activation = self.options.output_gate
        if isinstance(self.norm, nn.RMSNorm) and activation != "gelu":
            given = None if activation == "none" else gate
            normed = gated_norm(o, self.norm.weight, given, activation=activation, eps=EPS)
        else:
            normed = o.flatten(2) if self.norm is None else self.norm(o.flatten(2))
            normed = normed if activation == "none" else normed * _ACTIVATIONS[activation](gate)
        out: Tensor = self.out(normed)
        return out


def _norm(kind: str, width: int, values: int) -> nn.Module | None:
    if kind == "rms":
        return nn.RMSNorm(width, eps=EPS)
    return nn.LayerNorm(values, eps=EPS) if kind == "layer" else None


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
}
