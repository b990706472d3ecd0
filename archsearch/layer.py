"""Layers: one token mixer of a pattern with its options, what it is told of its place, and who knows the names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, get_args

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from archsearch.errors import NotationError, OptionsError, PluginError, SpecError
from archsearch.options import MixerOptions

if TYPE_CHECKING:
    from archsearch.mixer import MixerPlugin


MAX_FFN_DIM = 2**24
"""The widest channel mixer: far above what is trained."""


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One layer of a pattern: its token mixer's name and all of its options, the defaults written out.

    ``ffn_dim`` is the hidden width of the layer's own channel mixer, 0 for none; None is the backbone's.
    """

    mixer: str
    options: MixerOptions
    ffn_dim: int | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"mixer": name, "options": {...}}`` with every option, and ``"ffn_dim"`` where the layer has its own."""
        own = {} if self.ffn_dim is None else {"ffn_dim": self.ffn_dim}
        return {"mixer": self.mixer, "options": self.options.model_dump(mode="json"), **own}

    def with_ffn_dim(self, ffn_dim: int | None) -> LayerSpec:
        """The layer with a channel mixer of another width; raises `SpecError` for one that is none."""
        if ffn_dim is not None and not (type(ffn_dim) is int and 0 <= ffn_dim <= MAX_FFN_DIM):
            raise SpecError(f"ffn_dim = {ffn_dim!r}: must be a whole number from 0 (no channel mixer) to {MAX_FFN_DIM}")
        return self if ffn_dim == self.ffn_dim else replace(self, ffn_dim=ffn_dim)

    @cached_property
    def _hash(self) -> int:
        return hash((self.mixer, self.options, self.ffn_dim))

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash, which is another one in another process."""
        return {"mixer": self.mixer, "options": self.options, "ffn_dim": self.ffn_dim}

    @classmethod
    def make(cls, name: str, resolver: Resolver, /, **options: Any) -> LayerSpec:
        """The layer that a mixer or preset name stands for, with options laid over the preset's, of which those that
        say nothing beside them are left at their defaults."""
        resolved = resolver.resolve(name)
        preset = {option: value for option, value in resolved.preset.items() if option not in options}
        return cls(mixer=resolved.plugin.name, options=read_options(resolved.plugin, options, preset, resolver))


def read_options(
    plugin: MixerPlugin[Any], fixed: Mapping[str, Any], values: Mapping[str, Any], resolver: Resolver
) -> MixerOptions:
    """The options of these values, of which those that say nothing beside the rest are at their defaults; raises
    `OptionsError` for one that is refused otherwise, or that `fixed` says."""
    try:
        read: MixerOptions = plugin.parse_options({**fixed, **values}, resolver)
    except OptionsError as error:
        left = {option: value for option, value in values.items() if option not in error.unread}
        if len(left) == len(values):
            raise
        return read_options(plugin, fixed, left, resolver)
    return read


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a name in a pattern stands for: a plugin, and the options that a preset fixes (none for a mixer name)."""

    plugin: MixerPlugin[Any]
    preset: Mapping[str, Any]


class Resolver(Protocol):
    """Finds the mixer or preset of a name; the registry is one."""

    def resolve(self, name: str) -> Resolved:
        """Raises `UnknownNameError` or `ConflictError`."""
        ...

    def presets_of(self, mixer: str) -> Mapping[str, Mapping[str, Any]]:
        """The presets of a mixer that belong to it alone."""
        ...

    def layer(self, text: str) -> LayerSpec:
        """The layer that notation such as ``"sliding(window=64)"`` writes; raises `NotationError`."""
        ...


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """Where a mixer stands: layer ``index`` of ``depth``, a resolver for mixers made of other mixers, and the names and
    options of all layers, which are told only to a plugin that says ``reads_pattern = True`` (else None). ``part`` is
    its path where it is one of the mixers that another is made of ("0." the first, "0.1." the second of that), else
    empty."""

    index: int = 0
    depth: int = 1
    resolver: Resolver | None = None
    pattern: tuple[LayerSpec, ...] | None = None
    part: str = ""

    def told_to(self, plugin: MixerPlugin[Any], options: MixerOptions) -> LayerInfo:
        """What a plugin is told: the pattern only where it says that it reads it, or is made of mixers that may, so
        that costs kept by layer hold."""
        if self.pattern is None or plugin.reads_pattern or plugin.parts(options):
            return self
        return replace(self, pattern=None)

    def part_at(self, index: int) -> LayerInfo:
        """Where part `index` of the mixer stands."""
        return replace(self, part=f"{self.part}{index}.")

    @property
    def earlier(self) -> tuple[LayerSpec, ...]:
        """The layers before this one. Raises `PluginError` where the pattern is not told."""
        if self.pattern is None:
            raise PluginError("a layer asked for the pattern: its plugin must say reads_pattern = True")
        return self.pattern[: self.index]

    def plugin_of(self, part: LayerSpec) -> MixerPlugin[Any]:
        """The plugin of a mixer that this one is made of. Raises `PluginError` where no resolver is told."""
        if self.resolver is None:
            raise PluginError(f'"{part.mixer}" is a part of a mixer that was told no resolver: give LayerInfo one')
        return self.resolver.resolve(part.mixer).plugin


def _read_layer(value: object, info: ValidationInfo) -> LayerSpec:
    if isinstance(value, LayerSpec):
        if value.ffn_dim is not None:
            raise ValueError(f"a mixer within another has no channel mixer: drop ffn_dim = {value.ffn_dim}")
        return value
    resolver: Resolver | None = (info.context or {}).get("resolver")
    if resolver is None:
        raise ValueError("a layer by its name needs the registry that knows it: use parse_options(values, registry)")
    try:
        if isinstance(value, str):
            return resolver.layer(value)
        if isinstance(value, Mapping) and "mixer" in value and set(value) <= {"mixer", "options"}:
            return LayerSpec.make(value["mixer"], resolver, **value.get("options", {}))
    except NotationError as error:
        raise ValueError(error.message) from None
    except SpecError as error:
        raise ValueError(str(error)) from None
    raise ValueError('a layer is written as notation, such as "sliding(window=64)", or {"mixer": ..., "options": ...}')


Layer: TypeAlias = Annotated[
    LayerSpec,
    PlainValidator(_read_layer),
    PlainSerializer(LayerSpec.to_json, return_type=dict),
    WithJsonSchema({"type": "string", "description": "a layer, as notation writes it"}),
]
"""The type of an option that holds a layer, as in ``parallel(a=kda, b=sliding(window=64))``; `tuple[Layer, ...]` is
written ``parallel(of=[kda sliding(window=64)])``."""


def layers_in(options: MixerOptions) -> Iterator[LayerSpec]:
    """The layers that options hold, in the order of declaration."""
    return (layer for _, layer in named_layers(options))


def named_layers(options: MixerOptions) -> Iterator[tuple[str, LayerSpec]]:
    """The layers that options hold, each by its option: "a", of several under one name "more.0"."""
    for name in type(options).model_fields:
        value = getattr(options, name)
        if isinstance(value, LayerSpec):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}.{at}", item) for at, item in enumerate(value) if isinstance(item, LayerSpec))


def holds_layers(options: type[MixerOptions]) -> bool:
    """Whether some option of that type holds a layer, so that its values can be read only where names are known."""
    return any(_mentions_layer(field.annotation) for field in options.model_fields.values())


def _mentions_layer(annotation: object) -> bool:
    return annotation is LayerSpec or any(map(_mentions_layer, get_args(annotation)))
