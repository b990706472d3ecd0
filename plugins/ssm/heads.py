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
    """Mamba-3 with one input and output a head (arXiv 2603.15569, section 3, SISO)."""

    options: SsmOptions

    def __init__(
        self, plugin: MixerPlugin[SsmOptions], options: SsmOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        inner, states = options.inner(shape), options.state_dim
        self.heads, self.width = options.heads(shape), shape.head_dim
        self.sizes = [inner, inner, states, states, 3 * self.heads, options.angles]
        self.proj = nn.Linear(shape.d_model, sum(self.sizes), bias=False)
        steps = start_of_steps(self.heads)
        self.dt_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # whose softplus they are
        self.k_norm, self.q_norm = nn.RMSNorm(states, eps=_EPS), nn.RMSNorm(states, eps=_EPS)
        self.k_bias = nn.Parameter(torch.ones(self.heads, states))
        self.q_bias = nn.Parameter(torch.ones(self.heads, states))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.out = nn.Linear(inner, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        rows = None if ctx.cu_seqlens is None else PaddedRows.of(ctx.cu_seqlens, x.shape[1])
        wide = x if rows is None else rows.pad(x)
        given, gate, turned = self._written(wide, None if state is None else state.tensors["angle"][:, 0])
        given = replace(given, v=self._values(given.v, rows, ctx))
        with torch.autocast(x.device.type, enabled=False):
            before = None if state is None else _kept(state, given.q.dtype)
            o, kept = trapezoidal_recurrence(given, before, want_state=state is not None)
        out = self._output(o, given.v, gate)
        out = out if rows is None else rows.unpad(out)
        if state is None:
            return out, None
        angle = turned[:, -1] if x.shape[1] else state.tensors["angle"][:, 0]
        return out, _after(state, kept, angle, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the recurrence."""
        given, gate, turned = self._written(x_t[:, None], state.tensors["angle"][:, 0])
        given = replace(given, v=self._values(given.v, None, ctx))
        one = given.map(lambda y: y[:, 0])
        with torch.autocast(x_t.device.type, enabled=False):
            o, kept = trapezoidal_step(one, _kept(state, one.q.dtype))
        return self._output(o[:, None], given.v, gate)[:, 0], _after(state, kept, turned[:, 0], 1)

    def _written(self, x: Tensor, before: Tensor | None) -> tuple[Written, Tensor, Tensor]:
        """The recurrence's tokens in float32 at least, the gate's features, and how far each token is turned in all
        `[B, T, H, R]`, after `before` `[B, H, R]`."""
        gate, value, *made = torch.split(self.proj(x), self.sizes, dim=-1)
        dtype = torch.promote_types(x.dtype, torch.float32)
        k, q, rates, angles = (y.to(dtype) for y in made)
        step, rate, share = torch.unflatten(rates, -1, (3, self.heads)).unbind(-2)
        dt = F.softplus((step + self.dt_bias.to(dtype)).clamp(max=STEP_MOST))
        share = share.sigmoid()
        turned = ((angles.tanh() * math.pi)[..., None, :] * dt[..., None]).cumsum(1, dtype=torch.float64)
        turned = torch.remainder(turned if before is None else turned + before[:, None], 2 * math.pi).to(dtype)
        given = Written(
            q=_turned(_normed(q, self.q_norm)[..., None, :] + self.q_bias.to(dtype), turned),
            k=_turned(_normed(k, self.k_norm)[..., None, :] + self.k_bias.to(dtype), turned),
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

    def _output(self, o: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        """Outputs and values `[B, T, H, P]` to `[B, T, D]`."""
        read = (o + self.skip[:, None].to(o.dtype) * v).flatten(2).to(gate.dtype)
        out: Tensor = self.out(read * F.silu(gate))
        return out


def _normed(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype), _EPS)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """x `[..., N]`, of which pairs (2i, 2i + 1) for the first i below R are turned by angles `[..., R]`."""
    part, rest = x[..., : 2 * angles.shape[-1]], x[..., 2 * angles.shape[-1] :]
    pairs = torch.view_as_complex(torch.unflatten(part, -1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((torch.view_as_real(turned).flatten(-2), rest), -1)


def _kept(state: MixerState, dtype: torch.dtype) -> Kept:
    held, key, value = (state.tensors[name][:, 0].to(dtype) for name in ("recurrent", "key", "value"))
    return Kept(state=held, key=key, value=value)


def _after(state: MixerState, kept: Kept, angle: Tensor, count: int) -> MixerState:
    tensors = {"recurrent": kept.state, "key": kept.key, "value": kept.value, "angle": angle}
    return state.after({name: x[:, None].to(state.tensors[name].dtype) for name, x in tensors.items()}, count)
