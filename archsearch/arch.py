"""Architectures: what a model is made of, layer by layer; JSON both ways and a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from archsearch.errors import SpecError, listing, nearest
from archsearch.layer import MAX_FFN_DIM, LayerInfo, LayerSpec, Resolver
from archsearch.notation import format_layers, parse_layers
from archsearch.numbers import Numbers, Whole
from archsearch.shapes import Dtype, ModelShape

ChannelKind = Literal["none", "swiglu", "moe"]
ResidualKind = Literal["none", "identity", "learned"]
DERIVED = frozenset({"n_kv_heads", "head_dim", "ffn_dim", "expert_dim"})
"""Sizes of a backbone that follow from the others where they are left out."""
_MAX_WIDTH = 2**20
_MAX_HEADS = 2**16
_MAX_EXPERTS = 2**16
_MAX_PRODUCT = MAX_FFN_DIM
"""Of heads and their dim, and of experts and theirs: what a token is projected to."""


def _left_out(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key, 0)
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _size(values: Mapping[str, Any], key: str, default: int) -> int:
    """A size that is given, `default` where it is left out, and 1 for what is none."""
    if _left_out(values, key) and (key in DERIVED or key not in values):
        return default
    value = values[key]
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


class ModelSpec(Numbers):
    """The backbone that every candidate of a comparison shares: all but the token mixers.

    Sizes left out are derived: ``n_kv_heads`` is ``n_heads``, ``head_dim`` is ``d_model / n_heads``, ``ffn_dim``
    (SwiGLU) is 8/3 of ``d_model`` rounded up to 16, ``expert_dim`` is ``ffn_dim / experts_per_token``.
    ``short_conv`` is the width of a causal convolution in front of every token mixer, 0 for none;
    ``meta_tokens`` the number of learned tokens in front of every sequence, which costs count as tokens;
    ``value_residual`` how layers mix the first layer's values into theirs (`archsearch.value_residual`).
    ``dtype`` is the one that costs are counted in; ``vocab_size`` is the task's when a model is trained. Sizes are
    bounded far above what is trained, so that no product of them overflows a tensor's size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    d_model: Whole = Field(default=64, ge=1, le=_MAX_WIDTH)
    n_heads: Whole = Field(default=2, ge=1, le=_MAX_HEADS)
    n_kv_heads: Whole = Field(default=0, ge=1, le=_MAX_HEADS)
    head_dim: Whole = Field(default=0, ge=1, le=_MAX_WIDTH)
    short_conv: Whole = Field(default=0, ge=0, le=16)
    meta_tokens: Whole = Field(default=0, ge=0, le=4096)
    value_residual: ResidualKind = "none"
    channel_mixer: ChannelKind = "swiglu"
    ffn_dim: Whole = Field(default=0, ge=1, le=_MAX_PRODUCT)
    n_experts: Whole = Field(default=8, ge=1, le=_MAX_EXPERTS)
    experts_per_token: Whole = Field(default=2, ge=1, le=_MAX_EXPERTS)
    shared_experts: Whole = Field(default=1, ge=0, le=_MAX_EXPERTS)
    expert_dim: Whole = Field(default=0, ge=1, le=_MAX_PRODUCT)
    dtype: Dtype = "bfloat16"
    vocab_size: Whole = Field(default=32768, ge=1, le=2**31)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        """Sizes that follow from others; from 1 where those are no numbers, of which the error tells then."""
        if not isinstance(values, Mapping):
            return values
        d_model, n_heads = _size(values, "d_model", 64), _size(values, "n_heads", 2)
        ffn_dim = _size(values, "ffn_dim", -(-8 * d_model // 3 // 16) * 16)
        derived = {
            "n_kv_heads": n_heads,
            "head_dim": d_model // n_heads,
            "ffn_dim": ffn_dim,
            "expert_dim": max(1, ffn_dim // _size(values, "experts_per_token", 2)),
        }
        return {**values, **{key: size for key, size in derived.items() if _left_out(values, key)}}

    @model_validator(mode="wrap")
    @classmethod
    def _keep_given(cls, values: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Sizes that were derived are none that were given, so that `changed` derives them again."""
        made = read(values)
        if isinstance(values, Mapping):
            made.model_fields_set.intersection_update(key for key in values if values[key] or key not in DERIVED)
        return made

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Backbones that were stored before there was a value residual are written as they were."""
        values: dict[str, Any] = write(self)
        if values.get("value_residual") == "none":
            del values["value_residual"]
        return values

    @property
    def given(self) -> dict[str, Any]:
        """All fields but the sizes that were derived."""
        left_out = DERIVED - self.model_fields_set
        return {name: getattr(self, name) for name in ModelSpec.model_fields if name not in left_out}

    def changed(self, values: Mapping[str, Any]) -> ModelSpec:
        """This backbone with other values, where sizes that were left out follow from those; raises `SpecError`."""
        return ModelSpec.read({**self.given, **values}, "space.backbone")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads = {self.n_kv_heads} does not divide n_heads = {self.n_heads}: choose a divisor"
            )
        if self.d_model % self.n_heads and self.head_dim == self.d_model // self.n_heads:
            raise ValueError(f"n_heads = {self.n_heads} does not divide d_model = {self.d_model}: give head_dim")
        if self.experts_per_token > self.n_experts:
            raise ValueError("experts_per_token exceeds n_experts: a token cannot be sent to more than there are")
        self._check_product("n_heads", self.n_heads, "head_dim", self.head_dim)
        self._check_experts()
        return self

    def _check_experts(self) -> None:
        if self.channel_mixer == "moe":
            experts = self.n_experts + self.shared_experts
            self._check_product("n_experts + shared_experts", experts, "expert_dim", self.expert_dim)

    @staticmethod
    def _check_product(many: str, count: int, each: str, size: int) -> None:
        if count * size > _MAX_PRODUCT:
            raise ValueError(
                f"{many} = {count} by {each} = {size} is {count * size}, and at most {_MAX_PRODUCT} are allowed: "
                f"lower {each}"
            )

    @cached_property
    def shape(self) -> ModelShape:
        """What a mixer is told of the backbone."""
        return ModelShape(
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            dtype=self.dtype,
        )

    @property
    def channel_dim(self) -> int:
        """Hidden units of the channel mixer that a token meets of those it is routed to; 0 where there is none."""
        moe = self.expert_dim * self.experts_per_token
        return {"none": 0, "swiglu": self.ffn_dim, "moe": moe}[self.channel_mixer]

    def of_layer(self, layer: LayerSpec) -> ModelSpec:
        """The backbone as a layer has it, with a channel mixer of the layer's own width where it says one; a mixture
        shares that out among the experts of a token. Raises `SpecError` for a width that goes with no such backbone."""
        width = layer.ffn_dim
        if width is None:
            return self
        if width == 0:
            return self.model_copy(update={"channel_mixer": "none"})
        if self.channel_mixer == "none":
            raise SpecError(
                f'ffn_dim = {width}: the backbone has channel_mixer = "none": write 0, or give it a channel mixer'
            )
        if self.channel_mixer == "swiglu":
            return self.model_copy(update={"ffn_dim": width})
        if width % self.experts_per_token:
            raise SpecError(
                f"ffn_dim = {width}: {self.experts_per_token} experts of a token cannot share it out evenly: "
                "choose a multiple"
            )
        wide = self.model_copy(update={"expert_dim": width // self.experts_per_token})
        try:
            wide._check_experts()
        except ValueError as error:
            raise SpecError(f"ffn_dim = {width}: {error}") from None
        return wide

    def trained(self) -> dict[str, Any]:
        """The fields that a trained model depends on: not the accounting dtype, nor the task's vocabulary, nor
        sizes of a channel mixer that is not there."""
        values = self.model_dump(mode="json", exclude={"dtype", "vocab_size"})
        moe = {"n_experts", "experts_per_token", "shared_experts", "expert_dim"}
        for key in ("short_conv", "meta_tokens"):
            if not values[key]:
                del values[key]
        drop = {"none": moe | {"ffn_dim"}, "swiglu": moe, "moe": {"ffn_dim"}}[self.channel_mixer]
        return {key: value for key, value in values.items() if key not in drop}

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "model") -> ModelSpec:
        """From plain values; raises `SpecError` that names the key, the value and the remedy."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SpecError(explain(error, cls, where)) from None


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """A whole architecture: the backbone, and the token mixer of every layer from the first to the last.

    A layer whose own channel mixer is as wide as the backbone's is kept as one that has the backbone's.
    """

    model: ModelSpec
    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise SpecError("an architecture needs at least one layer")
        if any(layer.ffn_dim is not None for layer in self.layers):
            usual = self.model.channel_dim
            layers = tuple(layer.with_ffn_dim(None) if layer.ffn_dim == usual else layer for layer in self.layers)
            object.__setattr__(self, "layers", layers)

    @classmethod
    def parse(cls, pattern: str, resolver: Resolver, model: ModelSpec | None = None) -> ArchSpec:
        """From the notation, ``"[kda kda kda full]*4"``; raises `NotationError`. See `archsearch.notation`."""
        return cls(model=model or ModelSpec(), layers=parse_layers(pattern, resolver))

    def pattern(self, resolver: Resolver | None = None) -> str:
        """The shortest notation that reads back to the same layers; with a resolver, presets by their names."""
        return format_layers(self.layers, resolver)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return {
            "model": self.model.model_dump(mode="json"),
            "layers": [layer.to_json() for layer in self.layers],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], resolver: Resolver) -> ArchSpec:
        """Reads `to_json`'s data; raises `SpecError`, `OptionsError` or `UnknownNameError`."""
        unknown = sorted(set(data) - {"model", "layers"})
        if unknown or "layers" not in data:
            raise SpecError(f'an architecture has the keys "model" and "layers", not {listing(data)}')
        layers = tuple(
            LayerSpec.make(layer["mixer"], resolver, **layer.get("options", {})).with_ffn_dim(layer.get("ffn_dim"))
            for layer in data["layers"]
        )
        return cls(model=ModelSpec.read(data.get("model", {})), layers=layers)

    @cached_property
    def digest(self) -> str:
        """16 hex digits of what is trained: equal for equal architectures, in every process and Python version."""
        content = {"model": self.model.trained(), "layers": [layer.to_json() for layer in self.layers]}
        return digest_of(content)

    def layer_info(self, index: int, resolver: Resolver | None = None) -> LayerInfo:
        """Where the mixer of layer `index` stands."""
        return LayerInfo(index=index, depth=len(self.layers), resolver=resolver, pattern=self.layers)


def whole_pattern(text: str, model: ModelSpec, n_layers: int, resolver: Resolver) -> ArchSpec:
    """The architecture of a pattern on a backbone; one layer alone is repeated.

    Raises `NotationError` for a pattern that cannot be read, `SpecError` for one of another number of layers.
    """
    layers = ArchSpec.parse(text, resolver, model).layers
    if len(layers) == 1:
        layers *= n_layers
    if len(layers) != n_layers:
        raise SpecError(
            f'"{text}" has {len(layers)} layers, and model.n_layers = {n_layers}: write one layer, which is '
            "repeated, or all of them"
        )
    return ArchSpec(model=model, layers=layers)


def digest_of(content: Any) -> str:
    """16 hex digits of the SHA-256 of plain data in canonical JSON (sorted keys, no spaces, no NaN)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One line for a pydantic error: the key in full, the value, the reason, and the nearest known key.

    A key that is not known comes first: a misspelt one is missing too, and that is not what to tell.
    """
    errors = error.errors()
    first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    path = [str(part) for part in first["loc"]]
    key = ".".join([where, *path] if where else path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f'unknown key "{key}"{nearest(path[-1], known)}: known here are {listing(known)}'
    if first["type"] == "missing":
        return f'"{key}" is missing: add it'
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and isinstance(first["input"], Mapping | BaseModel):
        return f"{key}: {message}" if key else message
    return f"{key} = {first['input']!r}: {message}"


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = _model_in(field.annotation)
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
