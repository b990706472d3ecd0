"""Costs of a whole architecture and budgets over them: arithmetic only.

Conventions: 2 FLOPs a multiply-add; causal work counts the half that is needed; training is forward plus twice
that; prefill computes the logits of its last token only; decode FLOPs and traffic are for one token of one
sequence when the context, itself included, is in the state; weights are reported apart from the state. The meta tokens
of a backbone count as tokens of every sequence, of which no logits are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from archsearch.amounts import SILU, Flops, Traffic
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import reads_pattern, short_conv_of
from archsearch.errors import SpecError, listing, nearest
from archsearch.figures import Figures
from archsearch.layer import LayerSpec
from archsearch.mixer import LayerInfo, Phase, Resolver
from archsearch.units import format_quantity, parse_quantity
from archsearch.value_residual import mixing_cost, taken


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Costs of one layer: token mixer, short convolution, channel mixer and norms.

    ``mixer_params`` is the token mixer's own part.
    """

    mixer_params: int
    params: int
    active_params: int
    train_flops: Flops
    prefill_flops: Flops
    decode_flops: Flops
    kv_bytes: int
    state_bytes: int
    traffic: Traffic


@dataclass(frozen=True, kw_only=True)
class ArchCost:
    """Costs of a whole architecture at one context. FLOPs are totals over kinds, `flops` has them by kind.

    ``kv_bytes`` is what grows with tokens, windows included; ``state_bytes`` everything cached, kv included.
    """

    context: int
    params: int
    active_params: int
    train: Flops
    prefill: Flops
    decode: Flops
    kv_bytes: int
    state_bytes: int
    decode_read_bytes: float
    decode_written_bytes: float
    weight_bytes: float
    layers: tuple[LayerCost, ...]

    @property
    def train_flops(self) -> float:
        """FLOPs of one training step over one sequence: forward and twice that for backward."""
        return self.train.total

    @property
    def prefill_flops(self) -> float:
        """FLOPs to read one sequence."""
        return self.prefill.total

    @property
    def decode_flops(self) -> float:
        """FLOPs to decode one token."""
        return self.decode.total

    @property
    def decode_intensity(self) -> float:
        """FLOPs of one decoded token at batch 1 per byte that it moves, weights read included."""
        moved = self.decode_read_bytes + self.decode_written_bytes + self.weight_bytes
        return self.decode.total / moved

    def measure(self, name: str) -> float:
        """The cost of that name, one of `MEASURES`."""
        return float(getattr(self, name))

    def to_json(self) -> dict[str, Any]:
        """Plain data: every measure, FLOPs by kind, and the layers."""
        data: dict[str, Any] = {"context": self.context}
        data |= {name: self.measure(name) for name in MEASURES}
        for name in ("params", "active_params", "kv_bytes", "state_bytes"):
            data[name] = getattr(self, name)
        data["flops_by_kind"] = {
            "train": asdict(self.train),
            "prefill": asdict(self.prefill),
            "decode": asdict(self.decode),
        }
        data["layers"] = [_layer_json(layer) for layer in self.layers]
        return data


MEASURES: Mapping[str, str] = {
    "params": "",
    "active_params": "",
    "weight_bytes": "bytes",
    "train_flops": "FLOP",
    "prefill_flops": "FLOP",
    "decode_flops": "FLOP",
    "kv_bytes": "bytes",
    "state_bytes": "bytes",
    "decode_read_bytes": "bytes",
    "decode_written_bytes": "bytes",
    "decode_intensity": "",
}
"""Costs that a budget or an objective may name, with their units."""


def _layer_json(layer: LayerCost) -> dict[str, Any]:
    return {
        "mixer_params": layer.mixer_params,
        "params": layer.params,
        "train_flops": layer.train_flops.total,
        "prefill_flops": layer.prefill_flops.total,
        "decode_flops": layer.decode_flops.total,
        "kv_bytes": layer.kv_bytes,
        "state_bytes": layer.state_bytes,
        "decode_read_bytes": layer.traffic.read_bytes,
        "decode_written_bytes": layer.traffic.written_bytes,
    }


MOST_LAYERS = 2**20
"""Layers whose costs a float can add up, whatever each of them is."""


class CostModel:
    """Costs architectures; layers that were costed before are remembered, so that a search costs thousands a second."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._layers: dict[tuple[LayerSpec, int, int, ModelSpec, int, object], LayerCost] = {}
        self._around: dict[LayerSpec, bool] = {}
        self._models: dict[ModelSpec, ModelSpec] = {}

    def cost(self, arch: ArchSpec, context: int) -> ArchCost:
        """Costs of `arch` at `context` tokens; raises `SpecError` for a context below 1 and for sizes whose costs no
        float holds, `PluginError` for a mixer whose figures are none."""
        if context < 1:
            raise SpecError(f"context = {context}: must be at least 1 token")
        try:
            return self._cost(arch, context)
        except OverflowError:
            raise _too_large(arch.model, context) from None

    def _cost(self, arch: ArchSpec, context: int) -> ArchCost:
        model = arch.model
        tokens = context + model.meta_tokens
        layers = tuple(self._layer(arch, index, tokens) for index in range(len(arch.layers)))
        head = Flops(matmul=2.0 * model.d_model * model.vocab_size)
        norm = _norm_flops(model)
        embedding_params = model.d_model * (model.vocab_size + model.meta_tokens + 1)
        active = embedding_params + sum(layer.active_params for layer in layers)
        traffic = _sum((layer.traffic for layer in layers), Traffic())
        return ArchCost(
            context=context,
            params=embedding_params + sum(layer.params for layer in layers),
            active_params=active,
            train=_sum((layer.train_flops for layer in layers), (head + norm) * (3.0 * context)),
            prefill=_sum((layer.prefill_flops for layer in layers), head + norm * context),
            decode=_sum((layer.decode_flops for layer in layers), head + norm),
            kv_bytes=sum(layer.kv_bytes for layer in layers),
            state_bytes=sum(layer.state_bytes for layer in layers),
            decode_read_bytes=traffic.read_bytes,
            decode_written_bytes=traffic.written_bytes,
            weight_bytes=float(active * model.shape.dtype_bytes),
            layers=layers,
        )

    def _layer(self, arch: ArchSpec, index: int, context: int) -> LayerCost:
        layer = arch.layers[index]
        around = self._around.get(layer)
        if around is None:
            around = self._around[layer] = reads_pattern(layer, self._resolver)
        around = around or arch.model.value_residual != "none"
        key = (layer, index, len(arch.layers), arch.model, context, arch.layers if around else None)
        found = self._layers.get(key)
        if found is None:
            info = arch.layer_info(index, self._resolver)
            found = self._layers[key] = layer_cost(layer, arch.model, info, self._resolver, context)
        return found


def layer_cost(layer: LayerSpec, model: ModelSpec, info: LayerInfo, resolver: Resolver, context: int) -> LayerCost:
    """Costs of one layer of a model at `context` tokens: token mixer, channel mixer and their norms.

    Raises `SpecError` for sizes whose costs no float holds, `PluginError` for a mixer whose figures are none.
    """
    try:
        return _checked(_layer_cost(layer, model, info, resolver, context))
    except OverflowError:
        raise _too_large(model, context) from None


def _checked(cost: LayerCost) -> LayerCost:
    """`cost`; raises `OverflowError` for one of which a total could not be a float."""
    for count in (cost.params, cost.state_bytes):
        if not math.isfinite(float(count) * MOST_LAYERS):
            raise OverflowError
    return cost


def _too_large(model: ModelSpec, context: int) -> SpecError:
    at = f"{context} tokens" if context < 2**63 else "so many tokens"
    return SpecError(f"costs at {at} with {model.shape} are larger than a float holds: use smaller sizes")


def _layer_cost(layer: LayerSpec, model: ModelSpec, info: LayerInfo, resolver: Resolver, context: int) -> LayerCost:
    plugin, shape = Figures(resolver.resolve(layer.mixer).plugin, layer.options, model.shape, info), model.shape
    mixer_params, own = plugin.params(), model.of_layer(layer)
    channel_params, active_params, channel = channel_cost(own)
    norms = 1 if own.channel_mixer == "none" else 2
    width = short_conv_of(layer, model, resolver)
    tail_bytes = max(0, width - 1) * model.d_model * shape.dtype_bytes
    conv = Flops(elementwise=2.0 * width * model.d_model)
    residual_params, residual = _residual_cost(model, info, resolver)
    per_token = channel + _norm_flops(model) * norms + conv + residual

    def forward(phase: Phase) -> Flops:
        return plugin.flops(phase=phase, context=context) + per_token * (1.0 if phase == "decode" else float(context))

    state = plugin.state()
    other_params = (norms + width) * model.d_model + residual_params
    return LayerCost(
        mixer_params=mixer_params,
        params=mixer_params + channel_params + other_params,
        active_params=plugin.active_params() + active_params + other_params,
        train_flops=forward("train") * 3.0,
        prefill_flops=forward("prefill"),
        decode_flops=forward("decode"),
        kv_bytes=sum(tensor.nbytes(context) for tensor in state if tensor.grows),
        state_bytes=sum(tensor.nbytes(context) for tensor in state) + tail_bytes,
        traffic=plugin.traffic(context=context) + Traffic(read_bytes=tail_bytes, written_bytes=tail_bytes),
    )


def _residual_cost(model: ModelSpec, info: LayerInfo, resolver: Resolver) -> tuple[int, Flops]:
    """Parameters, and operations of one token, of the value residual; a layer of no pattern has none."""
    if info.pattern is None or model.value_residual == "none":
        return 0, Flops()
    mixed = taken(ArchSpec(model=model, layers=info.pattern), resolver)
    costs = [mixing_cost(values, model) for (index, _), (_, values) in mixed.items() if index == info.index]
    return sum(params for params, _ in costs), _sum((flops for _, flops in costs), Flops())


def channel_cost(model: ModelSpec) -> tuple[int, int, Flops]:
    """Parameters, parameters that one token uses, and FLOPs of one token, of the channel mixer."""
    d = model.d_model
    if model.channel_mixer == "none":
        return 0, 0, Flops()
    if model.channel_mixer == "swiglu":
        params = 3 * d * model.ffn_dim
        return params, params, _gated_flops(d, model.ffn_dim)
    expert = 3 * d * model.expert_dim
    used = model.experts_per_token + model.shared_experts
    router = d * model.n_experts
    flops = _gated_flops(d, model.expert_dim) * used + Flops(
        matmul=2.0 * router, elementwise=2.0 * d * used + 3.0 * model.n_experts, exp=float(model.n_experts)
    )
    return expert * (model.n_experts + model.shared_experts) + router, expert * used + router, flops


def _gated_flops(d_model: int, hidden: int) -> Flops:
    return Flops(matmul=6.0 * d_model * hidden) + (SILU + Flops(elementwise=1)) * float(hidden)


def _norm_flops(model: ModelSpec) -> Flops:
    """RMSNorm of one token and the residual addition that follows it."""
    return Flops(elementwise=5.0 * model.d_model)


def _sum(parts: Iterable[Any], start: Any) -> Any:
    for part in parts:
        start = start + part
    return start


@dataclass(frozen=True, kw_only=True)
class CostTerm:
    """A cost at a context, written ``decode_flops`` (the default context) or ``decode_flops@131072``."""

    measure: str
    context: int

    @classmethod
    def parse(cls, text: str, *, context: int) -> CostTerm:
        """Raises `SpecError` for a cost that does not exist or a context that is no number of tokens."""
        measure, at, where = text.partition("@")
        if measure not in MEASURES:
            raise SpecError(f'unknown cost "{measure}"{nearest(measure, MEASURES)}: known are {listing(MEASURES)}')
        if at:
            context = parse_context(where)
        return cls(measure=measure, context=context)

    @property
    def unit(self) -> str:
        """ "bytes", "FLOP" or "" for a count."""
        return MEASURES[self.measure]

    def __str__(self) -> str:
        return f"{self.measure}@{self.context}"


def parse_context(text: str | int) -> int:
    """A number of tokens: 131072, "131072" or "128Ki" (1024) or "128k" (1000)."""
    tokens = parse_quantity(text, unit="")
    if tokens < 1 or tokens != int(tokens):
        raise SpecError(f"context = {text}: must be a whole number of tokens, at least 1")
    return int(tokens)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A limit that a candidate exceeds; ``excess`` is the share by which it does (0.5: half again too much)."""

    term: CostTerm
    limit: float
    value: float

    @property
    def excess(self) -> float:
        """``value / limit - 1``; infinite for a value that is no number."""
        return math.inf if math.isnan(self.value) else self.value / self.limit - 1.0

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"{self.term} is not a number"
        value, limit = (format_quantity(number, unit=self.term.unit) for number in (self.value, self.limit))
        return f"{self.term} = {value} exceeds {limit}"


@dataclass(frozen=True)
class Budget:
    """Upper limits on costs, each at its own context."""

    limits: tuple[tuple[CostTerm, float], ...] = ()

    @classmethod
    def parse(cls, limits: Mapping[str, str | int | float], *, context: int) -> Budget:
        """From ``{"state_bytes": "18 MiB", "decode_flops@131072": "2 GFLOP"}``; `context` where none is named."""
        parsed = []
        for name, text in limits.items():
            term = CostTerm.parse(name, context=context)
            try:
                limit = parse_quantity(text, unit=term.unit)
            except SpecError as error:
                raise SpecError(f"budget.{name}: {error}") from None
            if not limit > 0 or not math.isfinite(limit):
                raise SpecError(f"budget.{name} = {text}: a limit must be above 0")
            parsed.append((term, limit))
        return cls(tuple(parsed))

    def violations(self, cost_at: Callable[[int], ArchCost]) -> list[Violation]:
        """The limits that a candidate exceeds, given its costs by context; a cost that is no number exceeds each."""
        found = []
        for term, limit in self.limits:
            value = cost_at(term.context).measure(term.measure)
            if not value <= limit:
                found.append(Violation(term=term, limit=limit, value=value))
        return found
