"""Gates: the parametrisations of the log decay that its forms are made of, and the strength of the delta rule."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo
from archsearch.model import Context
from archsearch.ops.bounds import LOG_RATE_MOST, STEP_MOST
from archsearch.ops.fused import fused
from archsearch.ops.triton.table import GATES

from .decays import Bounded, BoundedForget, DecayForm, Dims, Exponential, Fixed, LogSigmoid, Rate, TrainedForget


class DecayGate(nn.Module):
    """Log decays of a `DecayForm` from the ``features`` numbers a token that the layer's projection makes for it.

    ``forward`` takes them `[..., features]` and gives the log decay `[H]`, `[..., H]` or `[..., H, K]` by the kind,
    and the step size `[..., H]` where the form has one.
    """

    def __init__(self, form: DecayForm, dims: Dims) -> None:
        super().__init__()
        self.heads, self.features = dims.heads, form.features(dims)
        self.by_channel, self.has_step = form.kind == "channel", form.has_step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError

    def of(self, x: Tensor, ctx: Context | None) -> tuple[Tensor, Tensor | None]:
        """The same in a pass, in which layers may hand on what their decays have in common; None outside of one."""
        made: tuple[Tensor, Tensor | None] = self(x)
        return made

    def by_kind(self, log_decay: Tensor) -> Tensor:
        """One number a head as it is, one a channel `[..., H K]` as `[..., H, K]`."""
        return torch.unflatten(log_decay, -1, (self.heads, -1)) if self.by_channel else log_decay


class FixedDecay(DecayGate):
    """Fixed decays `[H]`, not trained."""

    log_decay: Tensor

    def __init__(self, form: DecayForm, dims: Dims, fixed: Fixed, layer: LayerInfo) -> None:
        super().__init__(form, dims)
        self.register_buffer("log_decay", fixed_log_decay(fixed, dims.heads, layer), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.log_decay, None


class RateDecay(DecayGate):
    """`Rate`, its A_log for each head, its dt_bias for each gate."""

    def __init__(self, form: DecayForm, dims: Dims, rate: Rate, *, even: bool = True) -> None:
        super().__init__(form, dims)
        rank, gates = form.rank(dims), form.gates(dims)
        self.up = nn.Linear(rank, gates, bias=False) if rank else None
        self.A_log = nn.Parameter(initial_A_log(dims.heads, *rate.start_rate, even=even))
        low, high = rate.start_step
        bias = initial_dt_bias(dims.heads, gates // dims.heads, low=low, high=high, even=even)
        self.dt_bias = nn.Parameter(bias.flatten())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x if self.up is None else self.up(x)
        if fused(GATES, x, 1):
            from archsearch.ops.triton.launch.gates import gate

            log_decay, step = gate(x, self.dt_bias, self.A_log, "rate", 1.0, self.has_step)
            return self.by_kind(log_decay), step if self.has_step else None
        dt, rate = _step_size(x, self.dt_bias), -_rate(self.A_log)
        log_decay = self.by_kind(dt) * (rate[:, None] if self.by_channel else rate)
        return log_decay, dt if self.has_step else None


class LogSigmoidDecay(DecayGate):
    """`LogSigmoid` of x, or of a low-rank map of it."""

    def __init__(self, form: DecayForm, dims: Dims, given: LogSigmoid) -> None:
        super().__init__(form, dims)
        self.temperature, self.cap = given.temperature, given.cap
        rank, gates = form.rank(dims), form.gates(dims)
        self.up = nn.Linear(rank, gates) if rank else None
        self.bias = None if given.start is None or rank else nn.Parameter(torch.linspace(*given.start, gates))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x if self.up is None else self.up(x)
        x = x if self.bias is None else x.float() + self.bias.float()
        x = capped(x, self.cap) if self.cap else x
        if fused(GATES, x, 1):
            from archsearch.ops.triton.launch.gates import gate

            log_decay, _ = gate(x, None, None, "logsigmoid", self.temperature, False)
        else:
            log_decay = F.logsigmoid(x.float()) / self.temperature
        return self.by_kind(log_decay), None


class BoundedDecay(DecayGate):
    """`Bounded`, by its low-rank map and a bias for each gate."""

    def __init__(self, form: DecayForm, dims: Dims, given: Bounded, *, even: bool = True) -> None:
        super().__init__(form, dims)
        rank, gates = form.rank(dims), form.gates(dims)
        self.lowest, self.squashed = given.lowest, given.squashed
        self.up = nn.Linear(rank, gates, bias=False) if rank else None
        self.A_log = nn.Parameter(torch.zeros(dims.heads)) if given.rate else None
        low, high = (bound / -given.lowest for bound in given.start)
        share = torch.exp(math.log(low) + math.log(high / low) * _shares(dims.heads, gates // dims.heads, even))
        self.bias = nn.Parameter(torch.logit(share).flatten())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x.tanh() if self.squashed else x
        x = self.by_kind((x if self.up is None else self.up(x)).float() + self.bias.float())
        if self.A_log is not None:
            rate = _rate(self.A_log)
            x = x * (rate[:, None] if self.by_channel else rate)
        return self.lowest * x.sigmoid(), None


class BoundedForgetDecay(DecayGate):
    """`BoundedForget`, whose bound is that of the layer's place."""

    def __init__(self, form: DecayForm, dims: Dims, layer: LayerInfo) -> None:
        super().__init__(form, dims)
        self.bound = layer.index / max(layer.depth, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x.float()
        if self.bound == 0:  # where 1 - sigmoid(-x) would lose what is left of a gate near 0
            return self.by_kind(F.logsigmoid(x)), None
        return self.by_kind(torch.log1p((self.bound - 1) * (-x).sigmoid())), None


class TrainedForgetDecay(DecayGate):
    """`TrainedForget`: 1 - b, and not b, goes from layer to layer, so that bounds near 1 lose nothing."""

    NAME = "forget bound"

    def __init__(self, form: DecayForm, dims: Dims, layer: LayerInfo) -> None:
        super().__init__(form, dims)
        self.layer = layer
        self.bound = nn.Parameter(torch.zeros(form.gates(dims))) if layer.index else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.of(x, None)

    def of(self, x: Tensor, ctx: Context | None) -> tuple[Tensor, Tensor | None]:
        x, left = x.float(), self._left(ctx)
        log_decay = F.logsigmoid(x) if left is None else torch.log1p(-left * (-x).sigmoid())
        return self.by_kind(log_decay), None

    def _left(self, ctx: Context | None) -> Tensor | None:
        """1 - b `[gates]`, handed on; None where b is 0."""
        if self.bound is None:
            return None
        found = None if ctx is None else ctx.nearest(self.layer, self.NAME)
        at, before = (0, None) if found is None or found[1].shape != self.bound.shape else found
        start = math.log((self.layer.index - at) / (self.layer.depth - self.layer.index))
        left = (-self.bound.float() - start).sigmoid()
        left = left if before is None else before * left
        if ctx is not None:
            ctx.share(self.layer, self.NAME, left)
        return left


class ExponentialDecay(DecayGate):
    """`Exponential`, bounded as rates are."""

    def __init__(self, form: DecayForm, dims: Dims, given: Exponential, layer: LayerInfo) -> None:
        super().__init__(form, dims)
        gates, (low, high) = form.gates(dims), given.start
        self.up = nn.Linear(form.rank(dims), gates)
        power = 0.7 + 1.3 * layer.index / max(layer.depth - 1, 1)
        with torch.no_grad():
            self.up.bias.copy_(low + (high - low) * torch.linspace(0, 1, gates) ** power)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.by_kind(-_rate(self.up(x.tanh()))), None


def capped(x: Tensor, cap: float) -> Tensor:
    """Numbers that stay between -``cap`` and ``cap``, and near 0 what they are."""
    return cap * torch.tanh(x / cap)


def fixed_log_decay(fixed: Fixed, heads: int, layer: LayerInfo) -> Tensor:
    """Log decays `[H]` of a layer, float32."""
    return fixed.log_decay(torch.arange(heads, dtype=torch.float64), layer).float()


def _rate(A_log: Tensor) -> Tensor:
    """exp of what trains, bounded so that it stays finite."""
    return A_log.float().clamp(max=LOG_RATE_MOST).exp()


def _step_size(x: Tensor, dt_bias: Tensor) -> Tensor:
    """softplus(x + dt_bias), bounded so that a rate times it, and a value, stay finite."""
    return F.softplus((x.float() + dt_bias.float()).clamp(max=STEP_MOST))


def write_strength(x: Tensor) -> Tensor:
    """beta = sigmoid(x) `[..., H]`, float32: the share of a key's value that the delta rule replaces."""
    if fused(GATES, x, 1):
        from archsearch.ops.triton.launch.gates import gate

        beta: Tensor = gate(x, None, None, "sigmoid", 1.0, False)[0]
        return beta
    return x.float().sigmoid()


def initial_A_log(heads: int, low: float = 1.0, high: float = 16.0, *, even: bool = True) -> Tensor:  # noqa: N802
    """log A with A uniform in [1, 16] (Mamba-2's code), where ``even`` one draw from each of `heads` equal parts."""
    return (low + (high - low) * _shares(heads, 1, even)[:, 0]).log()


def initial_dt_bias(
    heads: int, channels: int = 1, *, low: float = 1e-3, high: float = 0.1, even: bool = True
) -> Tensor:
    """Biases `[heads, channels]` whose softplus is log-uniform in [0.001, 0.1] (Mamba, arXiv 2312.00752, and
    its code), where ``even`` one draw from each of `heads` equal parts of it for every channel."""
    dt = torch.exp(math.log(low) + math.log(high / low) * _shares(heads, channels, even))
    return dt + torch.log(-torch.expm1(-dt))


def _shares(heads: int, channels: int, even: bool) -> Tensor:
    """Uniform in [0, 1), `[heads, channels]`; where ``even``, in every column one number from each of `heads` equal
    parts: each is distributed as a plain draw is, but a layer of two heads always gets a slow and a fast one."""
    if not even:
        return torch.rand(heads, channels)
    parts = torch.rand(heads, channels).argsort(dim=0)
    return (parts + torch.rand(heads, channels)) / heads


def decay_gate(form: DecayForm, dims: Dims, layer: LayerInfo, *, even: bool = True) -> DecayGate | None:
    """The gate of a form, None for no decay; ``even`` says how it draws its start."""
    match form.parametrisation:
        case None:
            return None
        case Fixed() as fixed:
            return FixedDecay(form, dims, fixed, layer)
        case Rate() as rate:
            return RateDecay(form, dims, rate, even=even)
        case LogSigmoid() as given:
            return LogSigmoidDecay(form, dims, given)
        case Bounded() as bounded:
            return BoundedDecay(form, dims, bounded, even=even)
        case BoundedForget():
            return BoundedForgetDecay(form, dims, layer)
        case TrainedForget():
            return TrainedForgetDecay(form, dims, layer)
        case Exponential() as given:
            return ExponentialDecay(form, dims, given, layer)
