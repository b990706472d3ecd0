"""The layers of the state space mixers: Mamba's block around the selective scan, S4D's around the fixed recurrence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.ops.bounds import LOG_RATE_MOST, STEP_MOST
from archsearch.ops.padded import PaddedRows
from archsearch.ops.short_conv import ShortConv, next_tail

from .fixed import Modes, fixed_recurrence, fixed_step
from .ops import Selected, scan_step, selective_scan
from .options import SsmOptions
from .starts import start_of_modes, start_of_steps


class SelectiveSpace(Mixer):
    """Mamba's block (arXiv 2312.00752, section 3.4): projection, convolution, the scan, skip, gate, projection."""

    options: SsmOptions

    def __init__(
        self, plugin: MixerPlugin[SsmOptions], options: SsmOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        inner, rank = options.inner(shape), options.steps_rank(shape)
        self.sizes = [rank, options.state_dim, options.state_dim]
        self.proj = nn.Linear(shape.d_model, 2 * inner, bias=False)
        self.conv = ShortConv(inner, options.conv) if options.conv else None
        self.conv_bias = nn.Parameter(torch.zeros(inner)) if options.conv else None
        self.select = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt = nn.Linear(rank, inner)
        with torch.no_grad():
            steps = start_of_steps(inner)
            self.dt.weight.uniform_(-(rank**-0.5), rank**-0.5)
            self.dt.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # whose softplus they are
        self.A_log = nn.Parameter(torch.arange(1.0, options.state_dim + 1).log()[:, None].repeat(1, inner))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        places = None if ctx.cu_seqlens is None else ctx.order_of(x)
        u, gate = self.proj(x).chunk(2, dim=-1)
        mixed, tail = self._mix(u, None if state is None else state.tensors.get("conv"), places)
        values = self._values(mixed, ctx)
        given = self._selected(mixed, values)
        held = given.u.new_zeros(len(x), *given.rate.shape) if state is None else state.tensors["recurrent"][:, 0]
        with torch.autocast(x.device.type, enabled=False):
            y, last = selective_scan(given, held.to(given.u.dtype), None if places is None else places == 0)
        return self._output(y, values, gate), None if state is None else _after(state, last, tail, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the recurrence."""
        u, gate = self.proj(x_t[:, None]).chunk(2, dim=-1)
        mixed, tail = self._mix(u, state.tensors.get("conv"), None)
        values = self._values(mixed, ctx)
        given = self._selected(mixed[:, 0], values[:, 0])
        with torch.autocast(x_t.device.type, enabled=False):
            y, last = scan_step(given, state.tensors["recurrent"][:, 0].to(given.u.dtype))
        return self._output(y[:, None], values, gate)[:, 0], _after(state, last, tail, 1)

    def _values(self, mixed: Tensor, ctx: Context) -> Tensor:
        """What is written, `[B, T, C]`: the inputs, one head of values to a value residual."""
        return self.mix_values(mixed[:, :, None], ctx)[:, :, 0]

    def _mix(self, u: Tensor, tail: Tensor | None, places: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """u `[B, T, C]` through convolution and silu, and the tail after it."""
        if self.conv is None or self.conv_bias is None:
            return F.silu(u), None
        mixed = self.conv(u, tail=tail, positions=places) + self.conv_bias
        return F.silu(mixed), None if tail is None else next_tail(tail, u)

    def _selected(self, u: Tensor, values: Tensor) -> Selected:
        """Of inputs `[..., C]` and what they write, in float32 at least; bounded so that decays and writes stay
        finite."""
        low, b, c = torch.split(self.select(u), self.sizes, dim=-1)
        dtype = torch.promote_types(u.dtype, torch.float32)
        dt = F.softplus(self.dt(low).to(dtype).clamp(max=STEP_MOST))
        rate = -self.A_log.to(dtype).clamp(max=LOG_RATE_MOST).exp()
        return Selected(u=values.to(dtype), dt=dt, b=b.to(dtype), c=c.to(dtype), rate=rate)

    def _output(self, y: Tensor, u: Tensor, gate: Tensor) -> Tensor:
        """Outputs and inputs of the scan `[B, T, C]` to `[B, T, D]`."""
        out: Tensor = self.out((y + self.skip.to(y.dtype) * u).to(gate.dtype) * F.silu(gate))
        return out


class FixedSpace(Mixer):
    """S4D's layer (arXiv 2206.11893 and its code): the recurrence on the model's channels, skip, GELU, GLU."""

    options: SsmOptions

    def __init__(
        self, plugin: MixerPlugin[SsmOptions], options: SsmOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        channels, states = shape.d_model, options.state_dim // 2 if options.complex else options.state_dim
        rate, angle = start_of_modes(options.start, states)
        self.log_dt = nn.Parameter(start_of_steps(channels).log())
        self.log_rate = nn.Parameter(rate.log().repeat(channels, 1))
        self.angle = nn.Parameter(angle.repeat(channels, 1)) if options.complex else None
        pair = (2,) if options.complex else ()
        self.read = nn.Parameter(torch.randn(channels, states, *pair) * (0.5**0.5 if options.complex else 1.0))
        self.skip = nn.Parameter(torch.randn(channels))
        self.out = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed tokens with a state."""
        state = self.state_for(x, state, ctx)
        rows = None if ctx.cu_seqlens is None else PaddedRows.of(ctx.cu_seqlens, x.shape[1])
        u = x.to(torch.promote_types(x.dtype, torch.float32))
        u = u if rows is None else rows.pad(u)
        held = None if state is None else state.tensors["recurrent"][:, 0]
        with torch.autocast(x.device.type, enabled=False):
            y, last = fixed_recurrence(u, held, self._modes(), want_state=state is not None)
        y = y if rows is None else rows.unpad(y)
        return self._output(y, x), None if state is None else _after(state, last, None, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, by the recurrence."""
        u = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        with torch.autocast(x_t.device.type, enabled=False):
            y, last = fixed_step(u, state.tensors["recurrent"][:, 0], self._modes())
        return self._output(y, x_t), _after(state, last, None, 1)

    def _modes(self) -> Modes:
        return Modes(log_dt=self.log_dt, log_rate=self.log_rate, angle=self.angle, read=self.read)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        """Outputs and inputs of the recurrence `[..., D]` to `[..., D]`."""
        out: Tensor = F.glu(self.out(F.gelu(y + self.skip.to(y.dtype) * x).to(x.dtype)), dim=-1)
        return out


def _after(state: MixerState, last: Tensor, tail: Tensor | None, count: int) -> MixerState:
    tensors = {"recurrent": last[:, None]}
    if tail is not None:
        tensors["conv"] = tail
    return state.after(tensors, count)
