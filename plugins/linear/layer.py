"""The layer of the linear mixers: one projection, short convolution, gates, the op, and the gated output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.gated_norm import gated_norm
from archsearch.ops.short_conv import Activation, ShortConv, next_tail

from .cost import projected
from .gates import decay_gate
from .ops import linear_attention, linear_attention_step
from .options import LinearOptions
from .shifted import StaticShift
from .substeps import interleaved, steps_of
from .tokens import Tokens
from .unit_length import unit_length
from .writes import WRITES

_EPS = 1e-6
_FIRST = 0.02
"""Spread of a learned first state at the start."""
_BONUS = -0.04
"""Where the bonus starts, as in RWKV-7's code."""


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Those of the op, whose v is what is written; the values `[B, T, H, V]` of the skip and the bonus; the features of
    the output gate; and the last inputs that the next tokens need, by their name in the state."""

    tokens: Tokens
    v: Tensor
    gate: Tensor
    tails: dict[str, Tensor]


class LinearMixer(Mixer):
    """Linear attention with what `LinearOptions` put around it, with as many key as value heads."""

    options: LinearOptions

    def __init__(
        self, plugin: MixerPlugin[LinearOptions], options: LinearOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.heads, self.key_dim, self.value_dim = options.dims(shape)
        self.scale = 1.0 if options.write == "dt" else self.key_dim**-0.5
        dims = options.dims(shape)
        self.decay = decay_gate(options.form, dims, layer)
        values = self.heads * self.value_dim
        self.sizes = list(projected(options, shape))
        self.proj = nn.Linear(shape.d_model, sum(self.sizes), bias=False)
        keys, steps = self.heads * self.key_dim, options.steps
        kinds = (keys, steps * keys, steps * values, *self.sizes[1:])
        self.shift = StaticShift(shape.d_model, kinds) if options.static_shift else None
        self.conv = ShortConv(self.sizes[0], options.conv) if options.conv else None
        delta = options.update == "delta"
        self.write = WRITES[options.removal](options.rule, dims, options.beta_range) if delta else None
        self.gate_up = nn.Linear(self.value_dim, values) if options.low_rank_gate else None
        self.skip = nn.Parameter(torch.ones(self.heads)) if options.skip else None
        self.bonus = nn.Parameter(torch.full((self.heads, self.key_dim), _BONUS)) if options.output_bonus else None
        learned = options.initial_state == "learned"
        self.first = nn.Parameter(_FIRST * torch.randn(dims)) if learned else None
        self.norm = nn.RMSNorm(self.value_dim, eps=_EPS) if options.output_norm == "rms" else None
        self.out = nn.Linear(values, shape.d_model, bias=False)

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """An empty state, which begins with the learned one where there is one."""
        state = super().init_state(batch, capacity, dtype=dtype, device=device)
        if self.first is not None:
            zeros = state.tensors["recurrent"]
            state.tensors["recurrent"] = zeros + self.first.to(zeros)
        return state

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`, by the chunkwise form; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        places = None if ctx.cu_seqlens is None else ctx.order_of(x)
        inputs = self._inputs(x, state, places)
        steps, bounds = self.options.steps, ctx.cu_seqlens
        if steps > 1:
            bounds = None if bounds is None else bounds * steps
        o, last = linear_attention(
            inputs.tokens if steps == 1 else interleaved(inputs.tokens, steps),
            scale=self.scale,
            initial_state=self._before(len(x) if bounds is None else len(bounds) - 1, state),
            cu_seqlens=bounds,
            want_state=state is not None,
        )
        o = o[:, steps - 1 :: steps]
        return self._output(o, inputs), None if state is None else _advance(state, inputs, last, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the recurrence."""
        inputs = self._inputs(x_t[:, None], state, None)
        last = state.tensors["recurrent"][:, 0]
        tokens, steps = inputs.tokens, self.options.steps
        for one in [tokens.only()] if steps == 1 else steps_of(tokens, steps):
            o, last = linear_attention_step(one, last, scale=self.scale, in_place=True)
        return self._output(o[:, None], inputs)[:, 0], _advance(state, inputs, last, 1)

    def _before(self, sequences: int, state: MixerState | None) -> Tensor | None:
        """The state `[N, H, K, V]` that sequences go on from, None for zeros."""
        if state is not None:
            return state.tensors["recurrent"][:, 0]
        return None if self.first is None else self.first.expand(sequences, -1, -1, -1)

    def _inputs(self, x: Tensor, state: MixerState | None, places: Tensor | None) -> _Inputs:
        held = {} if state is None else state.tensors
        tails = {}
        if self.shift is None:
            features = self.proj(x)
        else:
            features = self.shift(x, self.proj.weight, held.get("shift"), places)
            tails = {"shift": self.shift.after(held["shift"], x)} if state is not None else {}
        qkv, gate, decay, write = torch.split(features, self.sizes, dim=-1)
        mixed, tail = self._mix(qkv, held.get("conv"), places)
        tails |= {} if tail is None else {"conv": tail}
        q, k, v = self._activate(mixed)
        log_decay, step_size = (None, None) if self.decay is None else self.decay(decay)
        written = v
        if self.options.write == "dt" and step_size is not None:
            written = v * step_size[..., None].to(v.dtype)
        tokens = Tokens(q, k, written, log_decay=log_decay)
        tokens = tokens if self.write is None else self.write(write, tokens)
        return _Inputs(tokens=tokens, v=v, gate=gate, tails=tails)

    def _mix(self, qkv: Tensor, tail: Tensor | None, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """q, k and v `[B, T, C]` through the convolution, and the tail after them."""
        if self.conv is None:
            return qkv, None
        if tail is not None and qkv.shape[1] == 1:
            mixed, after = self.conv.advance(qkv[:, 0], tail, activation=self._shared)
            return mixed[:, None], after
        mixed = self.conv(qkv, tail=tail, positions=places, activation=self._shared)
        return mixed, None if tail is None else next_tail(tail, qkv)

    @property
    def _shared(self) -> Activation:
        """The activation that the convolution applies, because q, k and v all have it."""
        alike = self.conv is not None and self.options.activation == self.options.value_activation == "silu"
        return "silu" if alike else "none"

    def _activate(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys = (1 + self.options.steps) * self.heads * self.key_dim
        sizes = [keys, mixed.shape[-1] - keys]
        if self.options.activation == self.options.value_activation:
            alike = mixed if self._shared != "none" else _ACTIVATIONS[self.options.activation](mixed)
            qk, v = torch.split(alike, sizes, dim=-1)
        else:
            qk, v = torch.split(mixed, sizes, dim=-1)
            qk, v = _ACTIVATIONS[self.options.activation](qk), _ACTIVATIONS[self.options.value_activation](v)
        qk = torch.unflatten(qk, -1, (-1, self.key_dim))
        if self.options.norm == "l2":
            qk = unit_length(qk)
        q, k = torch.split(qk, [self.heads, qk.shape[-2] - self.heads], dim=-2)
        return q, k, torch.unflatten(v, -1, (-1, self.value_dim))

    def _output(self, o: Tensor, inputs: _Inputs) -> Tensor:
        """Outputs of the op `[B, T, H, V]` to `[B, T, D]`."""
        if self.skip is not None:
            o = o + self.skip[:, None].to(o.dtype) * inputs.v
        gate, activation = None, self.options.output_gate
        if activation != "none":
            gate = inputs.gate if self.gate_up is None else self.gate_up(inputs.gate)
        if self.bonus is not None:
            o = o if self.norm is None else self.norm(o.to(self.norm.weight.dtype))
            o = o + self._weighed(self.bonus, inputs)
            o = o.flatten(2) if gate is None else o.flatten(2) * _ACTIVATIONS[activation](gate)
        elif self.norm is not None:
            o = gated_norm(o, self.norm.weight, gate, activation=activation, eps=_EPS)
        else:
            o = o.flatten(2) if gate is None else o.flatten(2) * _ACTIVATIONS[activation](gate)
        out: Tensor = self.out(o)
        return out

    @staticmethod
    def _weighed(bonus: Tensor, inputs: _Inputs) -> Tensor:
        """The values `[B, T, H, V]` times (rho * k) . q (RWKV-7, arXiv 2503.14456, section 4)."""
        tokens = inputs.tokens
        return (tokens.q * bonus * tokens.k).sum(-1, keepdim=True) * inputs.v


def _advance(state: MixerState, inputs: _Inputs, last: Tensor, count: int) -> MixerState:
    return state.after({"recurrent": last[:, None], **inputs.tails}, count)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "elu1": lambda x: F.elu(x) + 1,
}
