"""Forms of the decay: each paper's parametrisation of the log decay, and its initialisation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.ops.bounds import LOG_RATE_MOST, STEP_MOST
from archsearch.ops.fused import fused
from archsearch.ops.triton.table import GATES

from .options import LinearOptions


class DecayGate(nn.Module):
    """Log decays from the ``features`` numbers a token that the layer's projection makes for it.

    ``forward`` takes them `[..., features]` and gives the log decay `[H]`, `[..., H]` or `[..., H, K]`, and the step
    size `[..., H]` where the form has one.
    """

    features = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class ConstantDecay(DecayGate):
    """Fixed decays `[H]`, not trained."""

    log_decay: Tensor

    def __init__(self, log_decay: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_decay", log_decay, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.log_decay, None


def retnet_log_decay(heads: int) -> Tensor:
    """log(1 - 2^(-5 - h)) for head h from 0 (RetNet, arXiv 2307.08621, equation 8)."""
    return torch.log1p(-(2.0 ** (-5.0 - torch.arange(heads, dtype=torch.float64)))).float()


def lightning_log_decay(heads: int, layer: LayerInfo) -> Tensor:
    """-2^(-8 (h + 1) / heads) (1 - l / (depth - 1) + 1e-5) for head h of layer l, both from 0.

    Decays slow down with depth (TransNormerLLM, arXiv 2307.14995, section 3.1); these slopes are MiniMax-01's
    (arXiv 2501.08313, section 2.2, and its released code).
    """
    slopes = 2.0 ** (-8.0 * (torch.arange(heads, dtype=torch.float64) + 1) / heads)
    return (-slopes * (1 - layer.index / max(layer.depth - 1, 1) + 1e-5)).float()


class Mamba2Decay(DecayGate):
    """-exp(A_log) dt with dt = softplus(x + dt_bias), for each head (Mamba-2, arXiv 2405.21060, section 7)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.features = heads
        self.A_log = nn.Parameter(initial_A_log(heads))
        self.dt_bias = nn.Parameter(initial_dt_bias(heads)[:, 0])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if fused(GATES, x, 1):
            from archsearch.ops.triton.launch.gates import gate

            log_decay, step = gate(x, self.dt_bias, self.A_log, "rate", 1.0, True)
            return log_decay, step
        dt = _step_size(x, self.dt_bias)
        return -_rate(self.A_log) * dt, dt


class GlaDecay(DecayGate):
    """logsigmoid(W_2 x + b) / 16, for each channel, x of rank 16 (GLA, arXiv 2312.06635, section 4.4)."""

    temperature = 16.0

    def __init__(self, heads: int, key_dim: int, rank: int) -> None:
        super().__init__()
        self.features, self.heads = rank, heads
        self.up = nn.Linear(rank, heads * key_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.up(x)
        if fused(GATES, x, 1):
            from archsearch.ops.triton.launch.gates import gate

            log_decay, _ = gate(x, None, None, "logsigmoid", self.temperature, False)
        else:
            log_decay = F.logsigmoid(x.float()) / self.temperature
        return torch.unflatten(log_decay, -1, (self.heads, -1)), None


class KdaDecay(DecayGate):
    """-exp(A_log) softplus(W_2 x + dt_bias), A_log for each head, the rest for each channel (Kimi Linear, arXiv
    2510.26692, "neural parameterization")."""

    def __init__(self, heads: int, key_dim: int, rank: int) -> None:
        super().__init__()
        self.features, self.heads = rank, heads
        self.up = nn.Linear(rank, heads * key_dim, bias=False)
        self.A_log = nn.Parameter(initial_A_log(heads))
        self.dt_bias = nn.Parameter(initial_dt_bias(heads, key_dim).flatten())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.up(x)
        if fused(GATES, x, 1):
            from archsearch.ops.triton.launch.gates import gate

            log_decay, _ = gate(x, self.dt_bias, self.A_log, "rate", 1.0, False)
            return torch.unflatten(log_decay, -1, (self.heads, -1)), None
        dt = _step_size(x, self.dt_bias)
        return torch.unflatten(dt, -1, (self.heads, -1)) * -_rate(self.A_log)[:, None], None


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


def initial_A_log(heads: int) -> Tensor:  # noqa: N802
    """log A with A uniform in [1, 16] (Mamba-2's code), one draw from each of `heads` equal parts of it."""
    return (1 + 15 * _stratified(heads, 1)[:, 0]).log()


def initial_dt_bias(heads: int, channels: int = 1, *, low: float = 1e-3, high: float = 0.1) -> Tensor:
    """Biases `[heads, channels]` whose softplus is log-uniform in [0.001, 0.1] (Mamba, arXiv 2312.00752, and
    its code), one draw from each of `heads` equal parts of it for every channel."""
    dt = torch.exp(math.log(low) + math.log(high / low) * _stratified(heads, channels))
    return dt + torch.log(-torch.expm1(-dt))


def _stratified(heads: int, channels: int) -> Tensor:
    """Uniform in [0, 1), `[heads, channels]`: in every column one number from each of `heads` equal parts.

    Each number is distributed as a plain draw is; but a layer of two heads always gets a slow and a fast one.
    """
    parts = torch.rand(heads, channels).argsort(dim=0)
    return (parts + torch.rand(heads, channels)) / heads


def decay_gate(options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> DecayGate | None:
    """The gate of ``options.decay_form``, None for no decay."""
    heads, key_dim, _ = options.dims(shape)
    rank = options.decay_rank(shape)
    match options.decay_form:
        case "none":
            return None
        case "retnet":
            return ConstantDecay(retnet_log_decay(heads))
        case "lightning":
            return ConstantDecay(lightning_log_decay(heads, layer))
        case "mamba2":
            return Mamba2Decay(heads)
        case "gla":
            return GlaDecay(heads, key_dim, rank)
        case "kda":
            return KdaDecay(heads, key_dim, rank)
