"""Choices of one layer: the valid options of a mixer as a tree, drawn option by option and never into a dead end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from archsearch.errors import OptionsError, SpecError
from archsearch.layer import LayerSpec, read_options
from archsearch.mixer import MixerPlugin
from archsearch.registry import Registry
from archsearch.search.variants import Choice, Variant, Variants, free_options


class Draw(Protocol):
    """Whoever makes choices: an Optuna trial, a random one, or a recorded one."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`, which are equal whenever `name` is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Node:
    """A point where a parameter is chosen: ``branches`` lead by label to the next node, or to a finished layer."""

    parameter: str
    branches: Mapping[Any, Node | LayerSpec]

    @property
    def labels(self) -> tuple[Any, ...]:
        """The choices as a sampler sees them."""
        return tuple(self.branches)


@dataclass(frozen=True, kw_only=True)
class MixerChoices:
    """What one entry of ``space.mixers`` may become: ``layers`` are its distinct layers, ``reference`` the one with
    the first of the narrowed values and the mixer's defaults for the rest."""

    name: str
    reference: LayerSpec
    root: Node | LayerSpec
    layers: tuple[LayerSpec, ...]

    def draw(self, trial: Draw, prefix: str) -> LayerSpec:
        """A layer, by parameters named ``<prefix>.<name>.<option>``, and ``<option>.<mixer>.<option>`` for those of a
        layer that an option holds."""
        node = self.root
        while isinstance(node, Node):
            labels = node.labels
            one = len(labels) == 1
            label = labels[0] if one else trial.suggest_categorical(f"{prefix}.{self.name}.{node.parameter}", labels)
            node = node.branches[label]
        return node

    def choices_of(self, layer: LayerSpec) -> Mapping[str, Any]:
        """The labels by parameter, ``<option>`` and so on, that lead to a layer."""
        return self._choices[layer]

    @cached_property
    def _choices(self) -> Mapping[LayerSpec, Mapping[str, Any]]:
        found: dict[LayerSpec, Mapping[str, Any]] = {}
        for layer, choices in _leaves(self.root):
            found.setdefault(layer, choices)
        return found


def _leaves(node: Node | LayerSpec) -> Iterator[tuple[LayerSpec, dict[str, Any]]]:
    if isinstance(node, LayerSpec):
        yield node, {}
        return
    for label, branch in node.branches.items():
        own = {node.parameter: label} if len(node.branches) > 1 else {}
        yield from ((layer, own | choices) for layer, choices in _leaves(branch))


def mixer_choices(
    name: str, narrowed: Mapping[str, tuple[Any, ...]], registry: Registry, accepts: Callable[[LayerSpec], None]
) -> MixerChoices:
    """The valid layers of a mixer or preset, its tunable options narrowed (or others opened) by `narrowed`.

    `accepts` raises `OptionsError` for a layer that the backbone's sizes rule out. Raises `OptionsError` or
    `SpecError` for an option that the mixer does not have, a preset fixes, or a value that no combination allows.
    """
    resolved = registry.resolve(name)
    plugin, fixed = resolved.plugin, resolved.preset
    options = _searched(name, plugin, fixed, narrowed, registry)
    found = Variants(registry, f"space.{name}")
    variants: list[Variant] = []
    for variant in found.of(plugin, fixed, options):
        try:
            accepts(variant.layer)
            variants.append(variant)
        except OptionsError as error:
            found.refused = found.refused or error
    if not variants:
        raise OptionsError(f"space.{name}: no combination of its options is valid: {found.refused}")
    _check_values(name, narrowed, variants, lambda values: _reason(plugin, {**fixed, **values}, registry, accepts))
    first = {option: values[0] for option, values in narrowed.items()}
    return MixerChoices(
        name=name,
        root=_tree([(variant.choices, variant.layer) for variant in variants]),
        layers=tuple(dict.fromkeys(variant.layer for variant in variants)),
        reference=_reference(plugin, fixed, first, registry, accepts) or variants[0].layer,
    )


def _searched(
    name: str,
    plugin: MixerPlugin[Any],
    fixed: Mapping[str, Any],
    narrowed: Mapping[str, tuple[Any, ...]],
    registry: Registry,
) -> dict[str, tuple[Any, ...]]:
    for option in narrowed:
        if option not in plugin.options.model_fields:
            _explain_unknown(name, plugin, option, registry)
        if option in fixed:
            raise SpecError(
                f'space.{name}.{option}: the preset "{name}" fixes {option} = {fixed[option]!r}: '
                f'drop the key, or name the mixer "{plugin.name}" in space.mixers'
            )
    given = {option: tuple(dict.fromkeys(values)) for option, values in narrowed.items()}
    return free_options(plugin, fixed) | given


def _explain_unknown(name: str, plugin: MixerPlugin[Any], option: str, registry: Registry) -> None:
    try:
        plugin.parse_options({option: None}, registry)
    except OptionsError as error:
        raise OptionsError(f"space.{name}.{option}: {error}") from None


def _reference(
    plugin: MixerPlugin[Any],
    fixed: Mapping[str, Any],
    values: Mapping[str, Any],
    registry: Registry,
    accepts: Callable[[LayerSpec], None],
) -> LayerSpec | None:
    try:
        layer = LayerSpec(mixer=plugin.name, options=read_options(plugin, fixed, values, registry))
        accepts(layer)
    except OptionsError:
        return None
    return layer


def _check_values(
    name: str,
    narrowed: Mapping[str, tuple[Any, ...]],
    variants: Sequence[Variant],
    reason: Callable[[Mapping[str, Any]], str],
) -> None:
    """Every value that a person wrote must be part of some valid combination, which reads it; else the `reason`."""
    for option, values in narrowed.items():
        used = {variant.offered[option] for variant in variants if option in variant.offered}
        for value in values:
            if value not in used:
                raise OptionsError(f"space.{name}.{option} = {value!r}: {reason({option: value})}")


def _reason(
    plugin: MixerPlugin[Any], values: Mapping[str, Any], registry: Registry, accepts: Callable[[LayerSpec], None]
) -> str:
    try:
        accepts(LayerSpec(mixer=plugin.name, options=plugin.parse_options(values, registry)))
    except OptionsError as error:
        return str(error)
    return "no combination with the other options is valid"


def _tree(leaves: Sequence[tuple[tuple[Choice, ...], LayerSpec]]) -> Node | LayerSpec:
    """Layers by the choices that lead to them: those of equal choices so far make the next one by one parameter."""
    choices, layer = leaves[0]
    if not choices:
        return layer
    groups: dict[Any, list[tuple[tuple[Choice, ...], LayerSpec]]] = {}
    for (choice, *later), leaf in leaves:
        groups.setdefault(choice.label, []).append((tuple(later), leaf))
    branches = {label: _tree(group) for label, group in groups.items()}
    return Node(parameter=_parameter(choices[0], list(branches)), branches=branches)


def _parameter(choice: Choice, left: list[Any]) -> str:
    """A sampler's parameter has one set of choices: where some are ruled out the parameter is another one."""
    if left == list(choice.declared):
        return choice.parameter
    return f"{choice.parameter}[{'|'.join(map(str, left))}]"
