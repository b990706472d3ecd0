"""The layer of Mamba-3: norms, biases and turns of keys and queries, the trapezoidal recurrence, skip and gate."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.bounds import STEP_MOST
from archsearch.ops.padded import PaddedRows

from .options import SsmOptions
from .starts import start_of_steps
from .trapezoid import Kept, Written, trapezoidal_recurrence, trapezoidal_step

_LEAST_RATE, _EPS = 1e-4, 1e-5
"""The slowest rate, and what norms add to mean squares (the authors' code)."""


class TrapezoidalSpace(Mixer):
    """Mamba-3 with one input and output a head (SISO) or ``rank`` of them (MIMO; arXiv 2603.15569, section 3).

    Each of several inputs is the head's value, each channel of it by a weight, and each of several gates the head's
    gate; outputs are added up by weights (section 3.3 and the authors' code).
    """

    options: SsmOptions
    inputs: nn.Parameter | None
    gates: nn.Parameter | None
    outputs: nn.Parameter | None

    def __init__(
        self, plugin: MixerPlugin[SsmOptions], options: SsmOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        inner, states, rank = options.inner(shape), options.state_dim, options.rank
        self.heads, self.width = options.heads(shape), shape.head_dim
        self.sizes = [inner, inner, rank * states, rank * states, 3 * self.heads, options.angles]
        self.proj = nn.Linear(shape.d_model, sum(self.sizes), bias=False)
        steps = start_of_steps(self.heads)
        self.dt_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # whose softplus they are
        self.k_norm, self.q_norm = nn.RMSNorm(states, eps=_EPS), nn.RMSNorm(states, eps=_EPS)
        self.k_bias = nn.Parameter(torch.ones(self.heads, rank, states))
        self.q_bias = nn.Parameter(torch.ones(self.heads, rank, states))
        starts = (1 / rank, 1.0, 1 / rank) if rank > 1 else (None, None, None)
        self.inputs, self.gates, self.outputs = (
            None if start is None else nn.Parameter(torch.full((self.heads, rank, self.width), start))
            for start in starts
        )
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.Parameter(torch.ones(self.heads, self.width)) if options.output_norm else None
        self.out = nn.Linear(inner, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        rows = None if ctx.cu_seqlens is None else PaddedRows.of(ctx.cu_seqlens, x.shape[1])
        wide = x if rows is None else rows.pad(x)
        given, gate, turned = self._written(wide, None if state is None else state.tensors["angle"][:, 0])
        value = self._values(given.v, rows, ctx)
        given = replace(given, v=_ranked(value, self.inputs))
        with torch.autocast(x.device.type, enabled=False):
            before = None if state is None else self._kept(state, given.q.dtype)
            o, kept = trapezoidal_recurrence(given, before, want_state=state is not None)
        out = self._output(o, given.v, gate)
        out = out if rows is None else rows.unpad(out)
        if state is None:
            return out, None
        if not x.shape[1]:
            return out, state.after(state.tensors, 0)
        return out, _after(state, kept, (value[:, -1], turned[:, -1]), x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the recurrence."""
        given, gate, turned = self._written(x_t[:, None], state.tensors["angle"][:, 0])
        value = self._values(given.v, None, ctx)
        given = replace(given, v=_ranked(value, self.inputs))
        one = given.map(lambda y: y[:, 0])
        with torch.autocast(x_t.device.type, enabled=False):
            o, kept = trapezoidal_step(one, self._kept(state, one.q.dtype))
        after = _after(state, kept, (value[:, 0], turned[:, 0]), 1)
        return self._output(o[:, None], given.v, gate)[:, 0], after

    def _written(self, x: Tensor, before: Tensor | None) -> tuple[Written, Tensor, Tensor]:
        """The recurrence's tokens in float32 at least, with one value a head, the gate's features, and how far each
        token is turned in all `[B, T, H, N / 4]`, after `before` `[B, H, N / 4]`."""
        gate, value, *made = torch.split(self.proj(x), self.sizes, dim=-1)
        dtype = torch.promote_types(x.dtype, torch.float32)
        k, q, rates, angles = (y.to(dtype) for y in made)
        k, q = (torch.unflatten(y, -1, (1, self.options.rank, -1)) for y in (k, q))
        step, rate, share = torch.unflatten(rates, -1, (3, self.heads)).unbind(-2)
        dt = F.softplus((step + self.dt_bias.to(dtype)).clamp(max=STEP_MOST))
        share = share.sigmoid()
        turned = ((angles.tanh() * math.pi)[..., None, :] * dt[..., None]).cumsum(1, dtype=torch.float64)
        turned = torch.remainder(turned if before is None else turned + before[:, None], 2 * math.pi).to(dtype)
        given = Written(
            q=_turned(_normed(q, self.q_norm) + self.q_bias.to(dtype), turned[..., None, :]),
            k=_turned(_normed(k, self.k_norm) + self.k_bias.to(dtype), turned[..., None, :]),
            v=torch.unflatten(value.to(dtype), -1, (self.heads, self.width)),
            log_decay=-F.softplus(rate.clamp(max=STEP_MOST)).clamp(min=_LEAST_RATE) * dt,
            own=share * dt,
            late=(1 - share) * dt,
        )
        return given, gate, turned

    def _values(self, v: Tensor, rows: PaddedRows | None, ctx: Context) -> Tensor:
        """Values `[B, T, H, P]` of ``rows`` of packed sequences, with those that a value residual brings."""
        if rows is None or self.value_residual is None:
            return self.mix_values(v, ctx)
        return rows.pad(self.mix_values(rows.unpad(v), ctx))

    def _kept(self, state: MixerState, dtype: torch.dtype) -> Kept:
        held, key, value = (state.tensors[name][:, 0].to(dtype) for name in ("recurrent", "key", "value"))
        return Kept(state=held, key=key, value=_ranked(value, self.inputs))

    def _output(self, o: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        """Outputs and values `[B, T, H, R, P]` to `[B, T, D]`."""
        read = o + self.skip[:, None, None].to(o.dtype) * v
        if self.norm is not None:
            read = F.rms_norm(read, read.shape[-1:], eps=_EPS) * self.norm[:, None].to(read.dtype)
        read = read.to(gate.dtype)
        gated = read * F.silu(_ranked(torch.unflatten(gate, -1, (self.heads, -1)), self.gates))
        joined = gated if self.outputs is None else (gated * self.outputs.to(gated.dtype)).sum(-2, keepdim=True)
        out: Tensor = self.out(joined.flatten(2))
        return out


def _ranked(x: Tensor, weights: Tensor | None) -> Tensor:
    """x `[..., H, P]` of heads as each of the R inputs or gates has it, `[..., H, R, P]`."""
    wide = x[..., None, :]
    return wide if weights is None else wide * weights.to(x.dtype)


def _normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype), _EPS)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """x `[..., N]`, of which pairs (2i, 2i + 1) for the first i below M are turned by angles `[..., M]`."""
    part, rest = x[..., : 2 * angles.shape[-1]], x[..., 2 * angles.shape[-1] :]
    pairs = torch.view_as_complex(torch.unflatten(part, -1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((torch.view_as_real(turned).flatten(-2), rest), -1)


def _after(state: MixerState, kept: Kept, last: tuple[Tensor, Tensor], count: int) -> MixerState:
    """With the value, one a head, and the angles of the ``last`` token."""
    tensors = {"recurrent": kept.state, "key": kept.key, "value": last[0], "angle": last[1]}
    return state.after({name: x[:, None].to(state.tensors[name].dtype) for name, x in tensors.items()}, count)
