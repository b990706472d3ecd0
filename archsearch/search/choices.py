"""Choices of one layer: the valid options of a mixer as a tree, drawn option by option and never into a dead end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from archsearch.errors import OptionsError, SpecError
from archsearch.layer import LayerSpec
from archsearch.mixer import MixerPlugin
from archsearch.registry import Registry

MAX_COMBINATIONS = 200_000


class Draw(Protocol):
    """Whoever makes choices: an Optuna trial, a random one, or a recorded one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`, which are equal whenever `name` is."""
        ...


@dataclass(kw_only=True)
class Node:
    """A point where an option is chosen: ``branches`` lead to the next option's node, or to a finished layer."""

    parameter: str
    branches: dict[Any, Node | LayerSpec]
    labels: tuple[Any, ...] = ()
    by_label: dict[Any, Node | LayerSpec] = field(default_factory=dict)

    def seal(self) -> None:
        """Settles how the choices are shown to a sampler."""
        self.labels = tuple(label_of(value) for value in self.branches)
        self.by_label = dict(zip(self.labels, self.branches.values(), strict=True))


@dataclass(frozen=True, kw_only=True)
class MixerChoices:
    """What one entry of ``space.mixers`` may become: ``layers`` are its distinct layers, ``reference`` the one with
    the first of the narrowed values and the mixer's defaults for the rest."""

    name: str
    reference: LayerSpec
    root: Node | LayerSpec
    layers: tuple[LayerSpec, ...]

    def draw(self, trial: Draw, prefix: str) -> LayerSpec:
        """A layer, by parameters named ``<prefix>.<name>.<option>``."""
        node = self.root
        while isinstance(node, Node):
            if len(node.labels) == 1:
                node = node.by_label[node.labels[0]]
            else:
                label = trial.suggest_categorical(f"{prefix}.{self.name}.{node.parameter}", node.labels)
                node = node.by_label[label]
        return node


def mixer_choices(
    name: str, narrowed: Mapping[str, tuple[Any, ...]], registry: Registry, accepts: Callable[[LayerSpec], None]
) -> MixerChoices:
    """The valid layers of a mixer or preset, its tunable options narrowed (or others opened) by `narrowed`.

    `accepts` raises `OptionsError` for a layer that the backbone's sizes rule out. Raises `OptionsError` or
    `SpecError` for an option that the mixer does not have, a preset fixes, or a value that no combination allows.
    """
    resolved = registry.resolve(name)
    plugin, fixed = resolved.plugin, resolved.preset
    options = _searched(name, plugin, fixed, narrowed)
    layers: dict[tuple[Any, ...], LayerSpec] = {}
    refused: OptionsError | None = None
    for values in itertools.product(*options.values()):
        try:
            layer = _layer(plugin, {**fixed, **dict(zip(options, values, strict=True))})
            accepts(layer)
            layers[values] = layer
        except OptionsError as error:
            refused = refused or error
    if not layers:
        raise OptionsError(f"space.{name}: no combination of its options is valid: {refused}")
    _check_values(name, plugin, options, narrowed, layers)
    return MixerChoices(
        name=name,
        root=_tree(list(options), list(layers.items()), options),
        layers=tuple(dict.fromkeys(layers.values())),
        reference=_reference(plugin, {**fixed, **{option: values[0] for option, values in narrowed.items()}}, accepts)
        or next(iter(layers.values())),
    )


def _searched(
    name: str, plugin: MixerPlugin[Any], fixed: Mapping[str, Any], narrowed: Mapping[str, tuple[Any, ...]]
) -> dict[str, tuple[Any, ...]]:
    for option in narrowed:
        if option not in plugin.options.model_fields:
            _explain_unknown(name, plugin, option)
        if option in fixed:
            raise SpecError(
                f'space.{name}.{option}: the preset "{name}" fixes {option} = {fixed[option]!r}: '
                f'drop the key, or name the mixer "{plugin.name}" in space.mixers'
            )
    tunables = {option: values for option, values in plugin.options.tunables().items() if option not in fixed}
    options = {option: tuple(dict.fromkeys(values)) for option, values in {**tunables, **narrowed}.items()}
    count = 1
    for values in options.values():
        count *= len(values)
    if count > MAX_COMBINATIONS:
        raise SpecError(
            f"space.{name} has {count} combinations of options, more than {MAX_COMBINATIONS}: "
            f"narrow some in [space.{name}]"
        )
    return options


def _explain_unknown(name: str, plugin: MixerPlugin[Any], option: str) -> None:
    try:
        plugin.parse_options({option: None})
    except OptionsError as error:
        raise OptionsError(f"space.{name}.{option}: {error}") from None


def _reference(
    plugin: MixerPlugin[Any], values: Mapping[str, Any], accepts: Callable[[LayerSpec], None]
) -> LayerSpec | None:
    try:
        layer = _layer(plugin, values)
        accepts(layer)
    except OptionsError:
        return None
    return layer


def _layer(plugin: MixerPlugin[Any], values: Mapping[str, Any]) -> LayerSpec:
    return LayerSpec(mixer=plugin.name, options=plugin.parse_options(values))


def _check_values(
    name: str,
    plugin: MixerPlugin[Any],
    options: Mapping[str, tuple[Any, ...]],
    narrowed: Mapping[str, tuple[Any, ...]],
    layers: Mapping[tuple[Any, ...], LayerSpec],
) -> None:
    """Every value that a person wrote must be part of some valid combination."""
    for option, values in narrowed.items():
        used = {values[list(options).index(option)] for values in layers}
        for value in values:
            if value not in used:
                raise OptionsError(f"space.{name}.{option} = {value!r}: {_reason(plugin, option, value)}")


def _reason(plugin: MixerPlugin[Any], option: str, value: Any) -> str:
    try:
        plugin.parse_options({option: value})
    except OptionsError as error:
        return str(error)
    return "no combination with the other options is valid"


def _tree(
    names: Sequence[str], leaves: Sequence[tuple[tuple[Any, ...], LayerSpec]], options: Mapping[str, tuple[Any, ...]]
) -> Node | LayerSpec:
    if not names:
        return leaves[0][1]
    groups: dict[Any, list[tuple[tuple[Any, ...], LayerSpec]]] = {}
    for values, layer in leaves:
        groups.setdefault(values[0], []).append((values[1:], layer))
    branches = {value: _tree(names[1:], group, options) for value, group in groups.items()}
    node = Node(parameter=_parameter(names[0], list(branches), options[names[0]]), branches=branches)
    node.seal()
    return node


def _parameter(option: str, left: list[Any], declared: Sequence[Any]) -> str:
    """A sampler's parameter has one set of choices: where some are ruled out the parameter is another one."""
    if left == list(declared):
        return option
    return f"{option}[{'|'.join(str(label_of(value)) for value in left)}]"


def label_of(value: Any) -> Any:
    """A value as a sampler sees it: plain ones as they are, others as JSON text."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else json.dumps(value, sort_keys=True, default=str)


def distinct(parts: Sequence[MixerChoices]) -> Iterator[LayerSpec]:
    """The distinct layers of several entries, in order."""
    yield from dict.fromkeys(itertools.chain.from_iterable(part.layers for part in parts))
