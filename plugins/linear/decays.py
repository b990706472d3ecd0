"""Forms of the decay, one record each: kind, parametrisation and its start, features, parameters and operations.

To add a form is to add a record to `FORMS`; options, costs and the layer read it there. No torch is imported here: what
records hold of tensors are functions of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from archsearch.amounts import SIGMOID, SOFTPLUS
from archsearch.mixer import Flops, LayerInfo

if TYPE_CHECKING:
    from torch import Tensor

Update = Literal["hebbian", "delta"]
Decay = Literal["none", "constant", "head", "channel"]
"""Kinds: no decay, one number a head, one a token and head, one a token and key channel."""


CAP = Flops(elementwise=2, exp=1)
"""c tanh(x / c) of one number."""


class Dims(NamedTuple):
    """Heads of a layer, and the key dim and value dim of one."""

    heads: int
    key_dim: int
    value_dim: int


def rwkv_rank(dims: Dims, share: float = 2.5) -> int:
    """Width of RWKV-7's low-rank maps of decay and rate, with a ``share`` of 1.7 of that to a gate of values (its
    released code), whose heads are 64 wide."""
    channels = float(dims.heads * dims.key_dim)
    return max(32, 32 * round(share * math.sqrt(channels) * dims.key_dim / 64 / 32))


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Log decays `[H]` that are not trained, of the numbers of the heads, float64 from 0."""

    log_decay: Callable[[Tensor, LayerInfo], Tensor]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """-exp(A_log) dt with dt = softplus(x + dt_bias), A_log of each head. At the start A is uniform in ``start_rate``
    and softplus(dt_bias) log-uniform in ``start_step``."""

    start_rate: tuple[float, float] = (1.0, 16.0)
    start_step: tuple[float, float] = (1e-3, 0.1)


@dataclass(frozen=True, kw_only=True)
class LogSigmoid:
    """logsigmoid(x + b) / temperature. b starts as torch starts a linear layer, or evenly from one number of ``start``
    to the other; without a low-rank map and ``start`` there is none. With a ``cap`` c x + b is c tanh((x + b) / c), and
    so is the gate of exponential writes, which then has a bias too, ``write_start`` at the start."""

    temperature: float
    start: tuple[float, float] | None = None
    cap: float = 0.0
    write_start: float = 0.0


@dataclass(frozen=True, kw_only=True)
class BoundedForget:
    """log f with f = bound + (1 - bound) sigmoid(x), bound = l / L in layer l of L: the forget gate's least value grows
    with depth."""


@dataclass(frozen=True, kw_only=True)
class TrainedForget:
    """log f with f = b + (1 - b) sigmoid(x), b of each channel trained, and the greater the deeper: in layer l of L
    1 - b = (1 - b_m) sigmoid(-t - log((l - m) / (L - l))), b_m of the nearest layer m before it that has such, 0 of
    layer 0 where there is none. At the start t = 0, so that b = l / L; layer 0 has no t."""


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """-exp(w), w of the low-rank map of tanh(x), plus a bias that runs over the channels from one number of ``start``
    to the other, the more slowly at first the deeper the layer."""

    start: tuple[float, float] = (-6.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """lowest sigmoid(A (x + bias)): no log decay is below ``lowest``. A = exp(A_log) of each head where it has a
    ``rate``, 1 at the start, else 1; x passes a tanh before the low-rank map where it is ``squashed``. At the start the
    biases are such that log decays are log-uniform in -``start``."""

    lowest: float
    start: tuple[float, float]
    rate: bool = False
    squashed: bool = False


@dataclass(frozen=True, kw_only=True)
class DecayForm:
    """How a paper makes its log decays. ``rank`` is the width of the low-rank map to a gate a channel, 0 for none.
    ``default_for`` is the update rule whose default it is among the forms of its kind."""

    name: str
    kind: Decay
    paper: str
    parametrisation: Fixed | Rate | LogSigmoid | BoundedForget | TrainedForget | Exponential | Bounded | None
    rank: Callable[[Dims], int] = lambda dims: 0
    default_for: Update = "hebbian"

    @property
    def has_step(self) -> bool:
        """Whether it makes a step size a head, which may scale what is written."""
        return self.kind == "head" and isinstance(self.parametrisation, Rate)

    def gates(self, dims: Dims) -> int:
        """Log decays that are made of each token."""
        return {"none": 0, "constant": 0, "head": dims.heads, "channel": dims.heads * dims.key_dim}[self.kind]

    def features(self, dims: Dims) -> int:
        """Numbers that the layer's projection makes of each token for the gates."""
        return self.rank(dims) or self.gates(dims)

    def params(self, dims: Dims) -> int:
        """Trained parameters beyond the projection: the low-rank map, biases, rates."""
        given = self.parametrisation
        has_rates = isinstance(given, Rate) or (isinstance(given, Bounded) and given.rate)
        return (self.rank(dims) + self.biased(dims)) * self.gates(dims) + (dims.heads if has_rates else 0)

    def biased(self, dims: Dims) -> bool:
        """Whether each gate has a bias."""
        given = self.parametrisation
        if isinstance(given, LogSigmoid):
            return given.start is not None or self.rank(dims) > 0
        return not isinstance(given, (BoundedForget, TrainedForget))

    @property
    def draws(self) -> bool:
        """Whether its gates start at what is drawn of a range."""
        return isinstance(self.parametrisation, Rate | Bounded)

    @property
    def write_cap(self) -> float:
        """What the gate of exponential writes is capped at, beside a bias; 0 for neither."""
        return self.parametrisation.cap if isinstance(self.parametrisation, LogSigmoid) else 0.0

    def placed_params(self, dims: Dims, layer: LayerInfo) -> int:
        """Trained parameters that only some layers have, by their place."""
        return self.gates(dims) if isinstance(self.parametrisation, TrainedForget) and layer.index else 0

    def flops(self, dims: Dims) -> Flops:
        """Operations of one token's gates beyond projection and low-rank map."""
        if isinstance(self.parametrisation, Bounded):
            squashed = float(self.rank(dims) * self.parametrisation.squashed)
            bounded = (SIGMOID + Flops(elementwise=2 + self.parametrisation.rate)) * float(self.gates(dims))
            return bounded + Flops(elementwise=3, exp=1) * squashed
        capped = CAP * float(self.write_cap > 0)
        return (SOFTPLUS + Flops(elementwise=2) + capped) * float(self.gates(dims))


NONE = DecayForm(name="none", kind="none", paper="", parametrisation=None)

RETNET_DECAY = Fixed(log_decay=lambda heads, layer: (-(2.0 ** (-5.0 - heads))).log1p())
RETNET = DecayForm(
    name="retnet",
    kind="constant",
    paper="log(1 - 2^(-5 - h)) (RetNet, arXiv 2307.08621, equation 8)",
    parametrisation=RETNET_DECAY,
)

LIGHTNING = DecayForm(
    name="lightning",
    kind="constant",
    paper="-2^(-8 (h + 1) / H) (1 - l / (L - 1) + 1e-5), layer l of L: slower with depth (TransNormerLLM, arXiv "
    "2307.14995, section 3.1); the slopes of MiniMax-01 (arXiv 2501.08313, section 2.2, and its released code)",
    parametrisation=Fixed(
        log_decay=lambda heads, layer: (
            -(2.0 ** (-8.0 * (heads + 1) / len(heads))) * (1 - layer.index / max(layer.depth - 1, 1) + 1e-5)
        )
    ),
)

TRANSNORMER = DecayForm(
    name="transnormer",
    kind="constant",
    paper="-2^(-8 (h + 1) / H) (1 - l / L), layer l of L (TransNormerLLM, arXiv 2307.14995, section 3.1)",
    parametrisation=Fixed(
        log_decay=lambda heads, layer: -(2.0 ** (-8.0 * (heads + 1) / len(heads))) * (1 - layer.index / layer.depth)
    ),
)

MAMBA2 = DecayForm(
    name="mamba2",
    kind="head",
    paper="Mamba-2, arXiv 2405.21060, section 7; its start as in its code and Mamba's, arXiv 2312.00752",
    parametrisation=Rate(),
)

GLA = DecayForm(
    name="gla",
    kind="channel",
    paper="x of rank 16 (GLA, arXiv 2312.06635, section 4.4)",
    parametrisation=LogSigmoid(temperature=16.0),
    rank=lambda dims: 16,
)

KDA = DecayForm(
    name="kda",
    kind="channel",
    paper='x of rank value_dim (Kimi Linear, arXiv 2510.26692, "neural parameterization")',
    parametrisation=Rate(),
    rank=lambda dims: dims.value_dim,
    default_for="delta",
)

BOUNDED = DecayForm(
    name="bounded",
    kind="channel",
    paper="-5 sigmoid(A (x + dt_bias)), x of rank value_dim (the bounded gate of the kernels of Kimi Linear, arXiv "
    "2510.26692, as released models have it: Bailing hybrid, GLM5-Next)",
    parametrisation=Bounded(lowest=-5.0, start=(1e-3, 1.6), rate=True),
    rank=lambda dims: dims.value_dim,
)

BOUNDED_FULL = replace(
    BOUNDED,
    name="bounded-full",
    paper="as bounded, x of a projection without a low-rank map (Bailing hybrid's released model)",
    rank=lambda dims: 0,
)

RWKV7 = DecayForm(
    name="rwkv7",
    kind="channel",
    paper="-e^(-1/2) sigmoid(tanh(x) W + w), x of rank 2.5 sqrt(H K) in steps of 32 (RWKV-7, arXiv 2503.14456, section "
    "4, and its code)",
    parametrisation=Bounded(lowest=-math.exp(-0.5), start=(2.5e-3, 0.375), squashed=True),
    rank=rwkv_rank,
)

GATED_RETENTION = DecayForm(
    name="gated-retention",
    kind="head",
    paper="logsigmoid(x) / 16 (gated retention: You Only Cache Once, arXiv 2405.05254, section 3.1)",
    parametrisation=LogSigmoid(temperature=16.0),
)

MLSTM = DecayForm(
    name="mlstm",
    kind="head",
    paper="logsigmoid(x + b), b from 3 to 6 (mLSTM: xLSTM, arXiv 2405.04517, equation 26 and appendix D)",
    parametrisation=LogSigmoid(temperature=1.0, start=(3.0, 6.0)),
)

XLSTM_7B = DecayForm(
    name="xlstm-7b",
    kind="head",
    paper="as mlstm, of gates capped at 15 (xLSTM 7B, arXiv 2503.13427, section 3, and its code)",
    parametrisation=LogSigmoid(temperature=1.0, start=(3.0, 6.0), cap=15.0, write_start=-10.0),
)

HGRN2 = DecayForm(
    name="hgrn2",
    kind="channel",
    paper="a forget gate with a lower bound that grows with depth (HGRN2, arXiv 2404.07904, section 3)",
    parametrisation=BoundedForget(),
)

HGRN2_TRAINED = DecayForm(
    name="hgrn2-trained",
    kind="channel",
    paper="a forget gate with a trained lower bound of each channel that grows with depth (HGRN2, arXiv 2404.07904, "
    "section 3, and its code)",
    parametrisation=TrainedForget(),
)

RWKV6 = DecayForm(
    name="rwkv6",
    kind="channel",
    paper="-exp(w), w of tanh of rank value_dim (RWKV-6, arXiv 2404.05892, section 4; its start as in its code)",
    parametrisation=Exponential(),
    rank=lambda dims: dims.value_dim,
)

_ALL = (
    NONE,
    RETNET,
    LIGHTNING,
    MAMBA2,
    GLA,
    KDA,
    GATED_RETENTION,
    MLSTM,
    HGRN2,
    RWKV6,
    BOUNDED,
    RWKV7,
    HGRN2_TRAINED,
    XLSTM_7B,
    TRANSNORMER,
    BOUNDED_FULL,
)
FORMS: Mapping[str, DecayForm] = {form.name: form for form in _ALL}


def forms_of(kind: str) -> list[DecayForm]:
    """The forms that a kind of decay may take; none for a kind that there is not."""
    return [form for form in FORMS.values() if form.kind == kind]


def default_form(update: object, kind: str) -> str | None:
    """The form of a kind that goes with an update rule unless another is named: its own, else the first."""
    forms = forms_of(kind)
    return next((form.name for form in (*(each for each in forms if each.default_for == update), *forms)), None)
