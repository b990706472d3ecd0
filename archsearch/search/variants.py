"""Variants: the valid layers of a mixer with the choices that lead to each, those of layers in layers among them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from archsearch.errors import NotationError, OptionsError, SpecError
from archsearch.layer import LayerSpec, read_options
from archsearch.mixer import MixerPlugin
from archsearch.notation import parse_call
from archsearch.registry import Registry

MAX_COMBINATIONS = 200_000


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A parameter, the label that was chosen, and the labels that it was declared with."""

    parameter: str
    label: Any
    declared: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A layer, the choices that lead to it, and the values of its own options as they were offered, but those that it
    does not read and has at their defaults."""

    layer: LayerSpec
    choices: tuple[Choice, ...]
    offered: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Alternative:
    """One value of an option: as it was offered, as it is read, and the choices that lead to it."""

    offered: Any
    value: Any
    choices: tuple[Choice, ...]


class Variants:
    """Goes through the combinations of options, and of the options of the layers that they hold.

    An option that holds a layer is drawn by its name, ``a``, then by that mixer's own options, ``a.sliding.window``:
    what the notation of a choice writes out is fixed, as ``"sliding(window=8)"`` fixes the window. `key` is where a
    spec says the options; ``refused`` is the first combination's reason that was invalid.
    """

    def __init__(self, registry: Registry, key: str) -> None:
        self._registry, self._key = registry, key
        self.refused: OptionsError | None = None

    def of(
        self,
        plugin: MixerPlugin[Any],
        fixed: Mapping[str, Any],
        options: Mapping[str, tuple[Any, ...]],
        *,
        path: str = "",
        within: tuple[str, ...] = (),
    ) -> Iterator[Variant]:
        """Every valid one. `path` goes before the names of parameters; `within` are the mixers around this one.

        Raises `SpecError` for more than `MAX_COMBINATIONS`, and for choices that hold themselves without end.
        """
        slots = [
            tuple(self._alternatives(plugin, option, values, path, (*within, plugin.name)))
            for option, values in options.items()
        ]
        first = {option: slot[0] for option, slot in zip(options, slots, strict=True) if slot}
        count = math.prod(map(len, slots))
        if count > MAX_COMBINATIONS:
            raise SpecError(
                f"{self._key} has {count} combinations of options, more than {MAX_COMBINATIONS}: "
                f"narrow some in [{self._key}]"
            )
        for picked in itertools.product(*slots):
            chosen = dict(zip(options, picked, strict=True))
            try:
                values = {option: alternative.value for option, alternative in chosen.items()}
                read = read_options(plugin, fixed, values, self._registry)
            except OptionsError as error:
                self.refused = self.refused or error
                continue
            unread = {option: chosen.pop(option) for option in read.unread() if option in chosen}
            if any(alternative is not first[option] for option, alternative in unread.items()):
                continue  # it is the layer of the first
            said = {
                option: alternative for option, alternative in unread.items() if values[option] == getattr(read, option)
            }
            yield Variant(
                layer=LayerSpec(mixer=plugin.name, options=read),
                choices=tuple(itertools.chain.from_iterable(alternative.choices for alternative in picked)),
                offered={option: alternative.offered for option, alternative in (chosen | said).items()},
            )

    def _alternatives(
        self, plugin: MixerPlugin[Any], option: str, values: tuple[Any, ...], path: str, within: tuple[str, ...]
    ) -> Iterator[_Alternative]:
        declared = tuple(map(label_of, values))
        texts = [value for value in values if isinstance(value, str)] if takes_layer(plugin, option) else []
        names = [_name(text) for text in texts]
        for value, label in zip(values, declared, strict=True):
            own = Choice(parameter=path + option, label=label, declared=declared)
            if value not in texts:
                yield _Alternative(offered=value, value=value, choices=(own,))
                continue
            part = _name(value) if names.count(_name(value)) == 1 else value  # a parameter has one set of choices
            for variant in self._parts(value, f"{path}{option}.{part}.", within):
                yield _Alternative(offered=value, value=variant.layer, choices=(own, *variant.choices))

    def _parts(self, text: str, path: str, within: tuple[str, ...]) -> Iterator[Variant]:
        """The layers that a choice of an option may become."""
        try:
            name, setting, written = parse_call(text, self._registry)
            if setting is not None:
                raise SpecError(f'a mixer has no setting "{setting}"')
            resolved = self._registry.resolve(name)
        except SpecError as error:
            reason = error.message if isinstance(error, NotationError) else str(error)
            self.refused = self.refused or OptionsError(f'{self._key}: the layer "{text}": {reason}')
            return
        fixed = {**resolved.preset, **written}
        options = free_options(resolved.plugin, fixed)
        if resolved.plugin.name in within and any(takes_layer(resolved.plugin, option) for option in options):
            raise SpecError(f'{self._key}: the layer "{text}" is made of itself without end: write out what it holds')
        yield from self.of(resolved.plugin, fixed, options, path=path, within=within)


def free_options(plugin: MixerPlugin[Any], fixed: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The tunable options that are not fixed, each value once."""
    tunables = plugin.options.tunables().items()
    return {option: tuple(dict.fromkeys(values)) for option, values in tunables if option not in fixed}


def takes_layer(plugin: MixerPlugin[Any], option: str) -> bool:
    """Whether an option holds one layer, or one or none."""
    annotation = plugin.options.model_fields[option].annotation
    either = get_args(annotation)
    return annotation is LayerSpec or (type(None) in either and any(LayerSpec in get_args(one) for one in either))


def label_of(value: Any) -> Any:
    """A value as a sampler sees it: plain ones as they are, layers as notation, others as JSON text."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else json.dumps(value, sort_keys=True, default=str)


def _name(text: str) -> str:
    """The name that a layer's notation begins with."""
    return text.partition("(")[0].strip()
