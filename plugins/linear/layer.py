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
from archsearch.ops.gated_norm import GateActivation, gated_norm
from archsearch.ops.rotary import Rotary
from archsearch.ops.short_conv import Activation, ShortConv, next_tail

from .additive.build import core_of, features_of
from .additive.shift import TokenShift, token_before
from .core import Call
from .cost import projected, values_rank
from .first_values import FirstValues
from .gates import decay_gate
from .norms import norm_of
from .options import LinearOptions
from .published_start import Pieces, start_as_published
from .shifted import StaticShift
from .tokens import Tokens
from .unit_length import unit_length
from .writes import WRITES

_FIRST = 0.02
"""Spread of a learned first state at the start."""
_BONUS = -0.04
"""Where the bonus on the output starts, as in RWKV-7's code."""


@dataclass(frozen=True, kw_only=True)
class _Projected:
    """What the layer projects of tokens: its ``features``, the ``read`` tokens that those of values are made of, and
    the tail that a shift leaves in the state."""

    features: Tensor
    read: Tensor
    tails: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Tokens of a layer in a pass: its context, their ``positions`` `[B, T]` where q and k are rotated by them, and
    what their values are made of, `[B, T, D]`."""

    ctx: Context
    positions: Tensor | None
    read: Tensor


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """Those of the op, whose v is what is written; the values `[B, T, H, V]` of skip and bonus; the features of the
    output gate, and ``more`` of the core; and what projection and convolution leave in the state."""

    tokens: Tokens
    v: Tensor
    gate: Tensor
    more: Tensor | None
    tails: dict[str, Tensor]


class LinearMixer(Mixer):
    """Linear attention with what `LinearOptions` put around it."""

    options: LinearOptions

    def __init__(
        self, plugin: MixerPlugin[LinearOptions], options: LinearOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.heads, self.key_dim, self.value_dim = options.dims(shape)
        self.scale = 1.0 if options.write == "dt" else self.key_dim**-0.5
        dims = options.dims(shape)
        self.decay = decay_gate(options.form, dims, layer, even=options.draws == "even")
        self.query_heads = options.query_heads(shape)
        values, queries = self.heads * self.value_dim, self.query_heads * self.key_dim
        self.sizes = list(projected(options, shape))
        self.proj = nn.Linear(shape.d_model, sum(self.sizes), bias=False)
        written = options.steps * values
        self.keys = self.sizes[0] - written
        self.roles = [size for size in (queries, self.keys - queries, written, *self.sizes[1:]) if size]
        self.values_role = 2 if self.keys > queries else 1
        self.shift = self._shift(layer)
        self.rotary = Rotary(self.key_dim, fraction=options.rope, base=options.rope_base) if options.rope else None
        rank = values_rank(options, shape, layer)
        self.first_values = FirstValues(shape.d_model, rank, dims, layer) if options.first_values else None
        self.features = features_of(options, shape, layer)
        self.core = core_of(options, shape, self.scale)
        self.conv = ShortConv(self.sizes[0], options.conv) if options.conv else None
        self.conv_bias = nn.Parameter(torch.zeros(self.sizes[0])) if options.conv_bias else None
        delta = options.update == "delta"
        self.write = WRITES[options.removal](options.rule, dims, options.beta_range) if delta else None
        gated = options.low_rank_gate
        self.gate_up = nn.Linear(self.sizes[1], values, bias=not options.inner_gate) if gated else None
        self.skip = nn.Parameter(torch.ones(self.heads)) if options.skip else None
        self.bonus = nn.Parameter(torch.full((self.heads, self.key_dim), _BONUS)) if options.output_bonus else None
        learned = options.initial_state == "learned"
        self.first = nn.Parameter(_FIRST * torch.randn(dims)) if learned else None
        self.norm = norm_of(options, shape)
        self.out = nn.Linear(values, shape.d_model, bias=False)
        if options.draws == "published":
            start_as_published(self._pieces(), dims, layer)

    def _pieces(self) -> Pieces:
        """What a published start sets."""
        shift, write, decay, first = self.shift, self.write, self.decay, self.first_values
        assert shift is not None
        assert write is not None
        assert decay is not None
        maps, ups = [*self.proj.weight.split(self.roles)], [decay.up, write.up, self.gate_up]
        if first is not None and first.down is not None:
            maps, ups = [*maps, first.down.weight], [*ups, first.up]
        return Pieces(
            mu=shift.get_parameter("mu"),
            decay=decay,
            write=write,
            norm=self.norm,
            maps=maps,
            ups=[up for up in ups if isinstance(up, nn.Linear)],
            out=self.out,
        )

    def _shift(self, layer: LayerInfo) -> TokenShift | StaticShift | None:
        """What mixes each token with the one before it."""
        if self.options.static_shift:
            return StaticShift(self.shape.d_model, len(self.roles))
        place = layer.index / max(layer.depth, 1)
        return TokenShift(self.shape.d_model, len(self.roles), place) if self.options.token_shift else None

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
        inputs = self._inputs(x, state, ctx, places)
        call = Call(
            more=inputs.more,
            state=None if state is None else state.tensors,
            lengths=None if state is None else state.lengths,
            fresh=state is None or (not torch.compiler.is_compiling() and state.longest == 0),
            cu_seqlens=ctx.cu_seqlens,
            places=places,
            first=self.first,
        )
        o, after = self.core(inputs.tokens, call)
        return self._output(o, inputs), None if state is None else state.after(after | inputs.tails, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the recurrence."""
        inputs = self._inputs(x_t[:, None], state, ctx, None)
        more = None if inputs.more is None else inputs.more[:, 0]
        call = Call(more=more, state=state.tensors, lengths=state.lengths, fresh=False)
        o, after = self.core.step(inputs.tokens.only(), call)
        return self._output(o[:, None], inputs)[:, 0], state.after(after | inputs.tails, 1)

    def _inputs(self, x: Tensor, state: MixerState | None, ctx: Context, places: Tensor | None) -> _Inputs:
        before = {} if state is None else state.tensors
        projected = self._project(x, before.get("shift"), places)
        qkv, gate, decay, write, more = torch.split(projected.features, self.sizes, dim=-1)
        mixed, tail = self._mix(qkv, before.get("conv"), places)
        tails = projected.tails
        if state is not None:
            tails |= {} if tail is None else {"conv": tail}
        positions = None
        if self.rotary is not None:
            positions = ctx.positions_of(x, None if state is None else state.lengths)
        tokens, v = self._made(mixed, decay, write, _Place(ctx=ctx, positions=positions, read=projected.read))
        return _Inputs(tokens=tokens, v=v, gate=gate, more=more if self.sizes[-1] else None, tails=tails)

    def _made(self, mixed: Tensor, decay: Tensor, write: Tensor, place: _Place | None = None) -> tuple[Tokens, Tensor]:
        """Tokens of what the convolution gave and of the features of gates, and their values as they are; without a
        place they are not those of a layer, but of one of its memories."""
        ctx = None if place is None else place.ctx
        log_decay, step_size = (None, None) if self.decay is None else self.decay.of(decay, ctx)
        q, k, v = self._activate(mixed, log_decay, None if place is None else place.positions)
        if place is not None:
            v = self.mix_values(v, place.ctx)
            v = v if self.first_values is None else self.first_values(v, place.read, place.ctx)
        written = v
        if self.options.write == "dt" and step_size is not None:
            written = v * step_size[..., None].to(v.dtype)
        tokens = Tokens(q, k, written, log_decay=log_decay)
        return tokens if self.write is None else self.write(write, tokens), v

    def _project(self, x: Tensor, last: Tensor | None, places: Tensor | None) -> _Projected:
        """Of `x` `[B, T, D]`; with the last token, where tokens are mixed with the one before."""
        if self.shift is None:
            return _Projected(features=self.proj(x), read=x, tails={})
        mixed = self.shift(x, token_before(x, last, places))
        weights = self.proj.weight.split(self.roles)
        projected = torch.cat([F.linear(part, weight) for part, weight in zip(mixed, weights, strict=True)], dim=-1)
        tails = {} if last is None else {"shift": next_tail(last, x)}
        return _Projected(features=projected, read=mixed[self.values_role], tails=tails)

    def _mix(self, qkv: Tensor, tail: Tensor | None, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """q, k and v `[B, T, C]` through the convolution, and the tail after them."""
        if self.conv is None:
            return qkv, None
        if tail is not None and qkv.shape[1] == 1:
            mixed, after = self.conv.advance(qkv[:, 0], tail, activation=self._shared)
            return self._biased(mixed[:, None]), after
        mixed = self.conv(qkv, tail=tail, positions=places, activation=self._shared)
        return self._biased(mixed), None if tail is None else next_tail(tail, qkv)

    def _biased(self, mixed: Tensor) -> Tensor:
        return mixed if self.conv_bias is None else mixed + self.conv_bias.to(mixed.dtype)

    @property
    def _shared(self) -> Activation:
        """The activation that the convolution applies, because q, k and v all have it."""
        plain = self.conv is not None and self.conv_bias is None
        alike = plain and self.options.activation == self.options.value_activation == "silu"
        return "silu" if alike else "none"

    def _activate(
        self, mixed: Tensor, log_decay: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        sizes = [self.keys, mixed.shape[-1] - self.keys]
        if self.options.activation == self.options.value_activation:
            alike = mixed if self._shared != "none" else _ACTIVATIONS[self.options.activation](mixed)
            qk, v = torch.split(alike, sizes, dim=-1)
        else:
            qk, v = torch.split(mixed, sizes, dim=-1)
            qk, v = _ACTIVATIONS[self.options.activation](qk), _ACTIVATIONS[self.options.value_activation](v)
        qk = torch.unflatten(qk, -1, (-1, self.key_dim))
        if self.options.norm == "l2":
            qk = unit_length(qk)
        if self.rotary is not None and positions is not None:
            qk = self.rotary(positions, qk)
        if self.options.key == "forget":
            assert log_decay is not None
            q, k = qk, -torch.expm1(log_decay).to(qk.dtype)
        else:
            q, k = torch.split(qk, [self.query_heads, qk.shape[-2] - self.query_heads], dim=-2)
        if self.features is not None:
            q, k = self.features(q, k)
        return q, k, torch.unflatten(v, -1, (-1, self.value_dim))

    def _output(self, o: Tensor, inputs: _Inputs) -> Tensor:
        """Outputs of the op `[B, T, H, V]` to `[B, T, D]`."""
        if self.skip is not None:
            o = o + self.skip[:, None].to(o.dtype) * inputs.v
        return self._gated(o, inputs.gate, self._bonus(inputs))

    def _bonus(self, inputs: _Inputs) -> Tensor | None:
        """The values `[B, T, H, V]` times (rho * k) . q (RWKV-7, arXiv 2503.14456, section 4)."""
        if self.bonus is None:
            return None
        return (inputs.tokens.q * self.bonus * inputs.tokens.k).sum(-1, keepdim=True) * inputs.v

    def _gated(self, o: Tensor, features: Tensor, bonus: Tensor | None = None) -> Tensor:
        """What is read `[B, T, H, V]` through norm, beside which there may be a bonus, gate and the last projection."""
        gate, activation = None, self.options.output_gate
        if activation != "none":
            gate, activation = self._gate(features, activation)
        kind = self.options.output_norm
        if kind == "gated" and gate is not None:
            o, gate = (o.flatten(2) * _ACTIVATIONS[activation](gate)).view_as(o), None
        norm = self.norm
        if isinstance(norm, nn.RMSNorm) and bonus is None and (gate is None or activation != "none"):
            o = gated_norm(self._together(o), norm.weight, gate, activation=activation, eps=self.options.norm_eps)
        else:
            o = self._normed(o) if bonus is None else bonus + self._normed(o)
            o = o.flatten(2) if gate is None else o.flatten(2) * _ACTIVATIONS[activation](gate)
        out: Tensor = self.out(o)
        return out

    def _gate(self, features: Tensor, activation: GateActivation) -> tuple[Tensor, GateActivation]:
        """The output gate, and the activation that it is yet to pass."""
        if self.gate_up is None:
            return features, activation
        if self.options.inner_gate:
            return self.gate_up(_ACTIVATIONS[activation](features)), "none"
        return self.gate_up(features), activation

    def _normed(self, o: Tensor) -> Tensor:
        """`[B, T, H, V]`, normed where there is a norm."""
        if self.norm is None:
            return o
        given = self._together(o).to(self.norm.weight.dtype) if isinstance(self.norm, nn.RMSNorm) else o
        normed: Tensor = self.norm(given)
        return normed.view_as(o)

    def _together(self, o: Tensor) -> Tensor:
        """Heads `[B, T, H, V]` by what is normed together: `[B, T, 1, H V]` where that is all of them."""
        return o if self.options.output_norm == "rms" else o.flatten(2)[:, :, None]


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "relu": F.relu,
    "elu1": lambda x: F.elu(x) + 1,
}
