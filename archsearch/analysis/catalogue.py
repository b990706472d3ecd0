"""The catalogue: every mixer and preset that is registered, with its family, rule, source, and how its state grows; and
the options of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import figures_of, refusal
from archsearch.layer import LayerSpec
from archsearch.mixer import MixerPlugin
from archsearch.notation import format_value
from archsearch.registry import Registry
from archsearch.shapes import StateTensor

BACKBONE = ModelSpec(d_model=2048, n_heads=16, head_dim=128)
"""The sizes at which growth is told."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A preset of ``mixer``, or the mixer with its defaults.

    ``rule`` and ``source`` are those of the system that it stands for, else the mixer's summary and ""; ``growth`` is
    of its state with the number T of tokens, "" where it cannot stand alone.
    """

    name: str
    mixer: str
    family: str
    rule: str
    source: str
    growth: str


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a mixer: ``default`` and the choices that a search has are written as a pattern has them."""

    option: str
    type: str
    default: str
    searched: tuple[str, ...]
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A preset of a mixer: its rule, where it was published, both "" where it stands for no system, and the options
    that it fixes, as a pattern has them."""

    preset: str
    rule: str
    published: str
    fixes: str


def catalogue(registry: Registry) -> list[Entry]:
    """Every mixer and preset, by family, mixer, and the order in which the plugin names them."""
    found = [entry_of(name, registry) for mixer in registry.mixers() for name in (mixer.name, *_presets(mixer))]
    return sorted(found, key=lambda entry: (entry.family, entry.mixer))


def entry_of(name: str, registry: Registry) -> Entry:
    """That of one mixer or preset."""
    mixer = registry.resolve(name).plugin
    system = mixer.systems.get(name)
    return Entry(
        name=name,
        mixer=mixer.name,
        family=mixer.family,
        rule=mixer.summary if system is None else system.rule,
        source="" if system is None else system.source,
        growth=_growth_of(name, registry),
    )


def systems(registry: Registry) -> list[Entry]:
    """Those of the catalogue that the field published."""
    return [entry for entry in catalogue(registry) if entry.source]


def options_of(name: str, registry: Registry) -> list[Option]:
    """The options of a mixer, in the order of declaration; of a preset, with its own values for defaults."""
    resolved = registry.resolve(name)
    kind = resolved.plugin.options
    searched, meanings = kind.tunables(), kind.meanings()
    defaults = resolved.plugin.parse_options(resolved.preset, registry)
    return [
        Option(
            option=option,
            type=_type(field.annotation),
            default=_written(getattr(defaults, option), registry),
            searched=tuple(_written(choice, registry) for choice in searched.get(option, ())),
            meaning=meanings[option],
        )
        for option, field in kind.model_fields.items()
    ]


def presets_of(mixer: MixerPlugin[Any], registry: Registry) -> list[Preset]:
    """The presets of a mixer, in the order in which the plugin names them."""
    found = []
    for name, values in registry.presets_of(mixer.name).items():
        system = mixer.systems.get(name)
        rule, published = ("", "") if system is None else (system.rule, system.source)
        options = mixer.parse_options(values, registry)
        fixes = ", ".join(f"{key}={_written(getattr(options, key), registry)}" for key in values)
        found.append(Preset(preset=name, rule=rule, published=published, fixes=fixes or "the defaults"))
    return found


def growth(tensors: Iterable[StateTensor]) -> str:
    """How what decoding keeps grows with T tokens, by the tensor that grows most: "T", "T / 16", "log T", "at most 512
    tokens", "constant", or "none" where nothing is kept."""
    held = list(tensors)
    unbounded = [tensor.stride for tensor in held if tensor.stride is not None and tensor.cap is None]
    bounded = [tensor.cap for tensor in held if tensor.stride == 1 and tensor.cap is not None]
    if unbounded:
        return "T" if min(unbounded) == 1 else f"T / {min(unbounded):,}"
    if any(tensor.log2 for tensor in held):
        return "log T"
    if bounded:
        return f"at most {max(bounded):,} tokens"
    return "constant" if held else "none"


def rows_in_words(tensor: StateTensor) -> str:
    """How many rows a tensor of a state has."""
    base = f"{tensor.base:,}" if tensor.base else ""
    if not tensor.grows:
        return f"{base or 0}, however long the sequence"
    if tensor.log2:
        grown = "one more with each doubling of the tokens"
    else:
        grown = "one a token" if tensor.stride == 1 else f"one every {tensor.stride or 1:,} tokens"
    most = "" if tensor.cap is None else f", at most {tensor.cap:,}"
    return f"{base} and {grown}{most}" if base else f"{grown}{most}"


def _presets(mixer: MixerPlugin[Any]) -> list[str]:
    return [name for name in mixer.presets if name != mixer.name]


def _written(value: Any, registry: Registry) -> str:
    """As a pattern has it; "none" for a list of nothing, which no pattern has."""
    return "none" if value == () else format_value(value, registry)


def _type(annotation: Any) -> str:
    """In words: "int", "mean | sum | gate", "layer", "list of layer"; "int | None" of what may be left out."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}"
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if arguments:
        return " | ".join(map(_type, arguments))
    if annotation is LayerSpec:
        return "layer"
    return "None" if annotation is type(None) else str(getattr(annotation, "__name__", annotation))


def _growth_of(name: str, registry: Registry) -> str:
    layer = LayerSpec.make(name, registry)
    arch = ArchSpec(model=BACKBONE, layers=(layer, layer))
    return "" if refusal(arch, registry) else growth(figures_of(layer, arch, 1, registry).state())
