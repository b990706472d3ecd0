"""Case: one set of a mixer's options, the place and sizes that its laws are tried with, and how far they may be off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from archsearch.composition import reads_pattern
from archsearch.figures import Figures
from archsearch.kernels import interpreting
from archsearch.layer import LayerInfo, LayerSpec, Resolved, Resolver
from archsearch.mixer import MixerOptions, MixerPlugin
from archsearch.model import Mixer
from archsearch.notation import parse_layer, parse_layers
from archsearch.ops.impl import VARIABLE
from archsearch.registry import load_registry
from archsearch.shapes import ModelShape
from archsearch.testing.stack import Stack

SHAPE = ModelShape(d_model=16, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
LAYER = LayerInfo(index=1, depth=4)
CPU = torch.device("cpu")
LONG = 160
"""Tokens of the sequences in which a law looks for what shows late."""


@contextmanager
def using_impl(impl: str) -> Iterator[None]:
    """Ops run `impl`, by ``ARCHSEARCH_IMPL``, which `choose_impl` heeds; "auto" leaves the variable as it is."""
    before = os.environ.get(VARIABLE)
    if impl != "auto":
        os.environ[VARIABLE] = impl
    try:
        yield
    finally:
        if impl != "auto":
            os.environ.pop(VARIABLE)
            os.environ |= {} if before is None else {VARIABLE: before}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one law is tried on.

    - ``plugin``, ``options``, ``shape``, ``layer``: what is built, and where; ``layer`` has a resolver and a pattern.
    - ``siblings``: other options that the plugin is tried with, by which a law may be broken that it declares broken.
    - ``tokens``: the length of the sequences.
    - ``tolerance``: by how much two forms of the same computation may differ, absolutely and as a share.
    - ``causal_tolerance``: by how much an output may change with what it must not depend on.
    - ``traffic_slack``, ``drops_beyond``, ``idle_parameters``, ``traffic_contexts``: as in `MixerConformance`.
    - ``device``: where the layer runs; ``impl``: the implementation of its ops, put in use by ``using``.
    """

    plugin: MixerPlugin[Any]
    options: MixerOptions
    shape: ModelShape = SHAPE
    layer: LayerInfo = LAYER
    siblings: tuple[MixerOptions, ...] = ()
    tokens: int = 100
    tolerance: float = 1e-4
    causal_tolerance: float = 1e-6
    traffic_slack: float = 0.0
    traffic_contexts: tuple[int, ...] = (2, 17, 50)
    drops_beyond: bool = True
    idle_parameters: frozenset[str] = frozenset()
    device: torch.device = CPU
    impl: str = "auto"
    using: Callable[[str], AbstractContextManager[None]] = using_impl

    @classmethod
    def of(
        cls,
        plugin: MixerPlugin[Any],
        values: Mapping[str, Any],
        *,
        registry: Resolver | None = None,
        pattern: str | Sequence[LayerSpec] | None = None,
        layer: LayerInfo = LAYER,
        **knobs: Any,
    ) -> Case:
        """The case of a plugin's options given as plain `values`; `knobs` are fields of the case, by default those that
        the plugin states (`MixerPlugin.conformance`).

        `registry` knows the names of other mixers, by default all that are installed. `pattern` is the architecture
        around the layer, as notation or as layers: the case's layer stands in the place of the first of its mixer in
        it, or of the layer's index; by default all layers are alike, and the place is the layer's index or, where
        the plugin refuses that, the first that it takes; where it refuses all, the second, after a layer of the first
        other mixer that it takes there. Raises `SpecError` for options or a pattern that cannot be.
        """
        resolver = OwnFirst(plugin, registry)
        stated = dict(plugin.conformance)
        around, cases = stated.pop("pattern", None), stated.pop("cases", {})
        pattern = pattern or around
        options = plugin.parse_options(values, resolver)
        own = LayerSpec(mixer=plugin.name, options=options)
        layers = _layers(pattern, resolver) if pattern is not None else (own,) * layer.depth
        named = [index for index, other in enumerate(layers) if other.mixer == plugin.name]
        index = layer.index if pattern is None or not named else named[0]
        around = (*layers[:index], own, *layers[index + 1 :])
        place = LayerInfo(index=index, depth=len(around), resolver=resolver, pattern=around)
        case = cls(plugin=plugin, options=options, layer=place, **stated | knobs)
        if "siblings" not in knobs:
            case = case.beside([{}, *plugin.presets.values(), *cases.values()])
        taken = case.places()
        if pattern is not None or index in taken:
            return case
        return case.at(taken[0]) if taken else case.after_another(resolver.others())

    @property
    def interpreted(self) -> bool:
        """Whether Triton's interpreter runs the kernels, so that time is short."""
        return self.impl == "triton" and self.device.type == "cpu" and interpreting()

    @property
    def long(self) -> int:
        """Tokens of a long sequence."""
        return self.tokens if self.interpreted else max(self.tokens, LONG)

    def at(self, index: int) -> Case:
        """The case in another layer of the pattern."""
        return replace(self, layer=replace(self.layer, index=index))

    def beside(self, values: Iterable[Mapping[str, Any]]) -> Case:
        """The case with the options of `values` as its siblings."""
        parsed = (self.plugin.parse_options(one, self.layer.resolver) for one in values)
        return replace(self, siblings=tuple(parsed))

    def after_another(self, others: Iterable[LayerSpec]) -> Case:
        """The case behind the first of the other layers that may stand there with it, as it is if none may."""
        own = LayerSpec(mixer=self.plugin.name, options=self.options)
        for other in others:
            moved = replace(self, layer=replace(self.layer, index=1, depth=3, pattern=(other, own, own)))
            if moved.figures().refusal() is None and moved._figures_of(0).refusal() is None:
                return moved
        return self

    def places(self) -> list[int]:
        """The layers of the pattern that are this one, or alike where all are: of them the first, a middle and the last
        that the plugin does not refuse."""
        own, pattern = LayerSpec(mixer=self.plugin.name, options=self.options), self.layer.pattern or ()
        alike = [index for index, layer in enumerate(pattern) if layer == own]
        taken = [index for index in alike if self.at(index).figures().refusal() is None]
        return sorted({taken[0], taken[len(taken) // 2], taken[-1]}) if taken else []

    def figures(self, shape: ModelShape | None = None) -> Figures:
        """What the plugin says of the layer, checked."""
        return Figures(self.plugin, self.options, shape or self.shape, self.layer)

    def _figures_of(self, index: int) -> Figures:
        """Of another layer of the pattern."""
        assert self.layer.pattern is not None
        assert self.layer.resolver is not None
        spec = self.layer.pattern[index]
        plugin = self.layer.resolver.resolve(spec.mixer).plugin
        return Figures(plugin, spec.options, self.shape, replace(self.layer, index=index))

    def one_head(self) -> ModelShape:
        """The shape with one head, or as it is where the plugin refuses that: heads may drop different tokens."""
        shape = replace(self.shape, n_heads=1, n_kv_heads=1)
        return shape if self.figures(shape).refusal() is None else self.shape

    def mixer(self, shape: ModelShape | None = None) -> Mixer:
        """The layer as it is run: with those before it where it reads the pattern, as it may need what they share."""
        pattern, resolver = self.layer.pattern, self.layer.resolver
        own = LayerSpec(mixer=self.plugin.name, options=self.options)
        if not self.layer.index or pattern is None or resolver is None or not reads_pattern(own, resolver):
            return self.build(shape)
        before = [
            replace(self.at(index), plugin=resolver.resolve(spec.mixer).plugin, options=spec.options).build(shape)
            for index, spec in enumerate(pattern[: self.layer.index])
        ]
        return Stack([*before, self.build(shape)]).eval()

    def build(self, shape: ModelShape | None = None) -> Mixer:
        """The layer, from a fixed seed, in evaluation mode on the case's device."""
        told = self.layer.told_to(self.plugin, self.options)
        with torch.random.fork_rng(devices=[]):
            seed(0)
            return self.plugin.build(self.options, shape or self.shape, told).eval().to(self.device)

    def inputs(self, batch: int, tokens: int | None = None) -> Tensor:
        """`[B, T, D]`, the same for the same sizes."""
        generator = torch.Generator().manual_seed(1)
        shape = (batch, self.tokens if tokens is None else tokens, self.shape.d_model)
        return torch.randn(shape, generator=generator).to(self.device)

    def noise(self, like: Tensor, seed: int = 2) -> Tensor:
        """Of the shape of `like`, the same for the same shape and seed."""
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def seed(number: int) -> None:
    """`torch.manual_seed`, which without a card formats the stack for each kind of device that is not there: half a
    millisecond, more than a step of a small layer takes."""
    if torch.cuda.is_available():
        torch.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)


class OwnFirst:
    """A resolver to which the names of one plugin are that plugin's, whoever claims them in the registry."""

    def __init__(self, plugin: MixerPlugin[Any], others: Resolver | None) -> None:
        self._plugin, self._others = plugin, others

    def resolve(self, name: str) -> Resolved:
        """See `Resolver.resolve`."""
        if name == self._plugin.name:
            return Resolved(plugin=self._plugin, preset={})
        if name in self._plugin.presets:
            return Resolved(plugin=self._plugin, preset=self._plugin.presets[name])
        return self._registry.resolve(name)

    def presets_of(self, mixer: str) -> Mapping[str, Mapping[str, Any]]:
        """See `Resolver.presets_of`."""
        return self._plugin.presets if mixer == self._plugin.name else self._registry.presets_of(mixer)

    def layer(self, text: str) -> LayerSpec:
        """See `Resolver.layer`."""
        return parse_layer(text, self)

    def others(self) -> Iterator[LayerSpec]:
        """A layer of every other mixer that the registry has, with its default options."""
        mixers: Iterable[MixerPlugin[Any]] = getattr(self._registry, "mixers", list)()
        for plugin in mixers:
            if plugin.name != self._plugin.name:
                yield LayerSpec.make(plugin.name, self)

    @property
    def _registry(self) -> Resolver:
        return _installed() if self._others is None else self._others


@cache
def _installed() -> Resolver:
    return load_registry()


def _layers(pattern: str | Sequence[LayerSpec], resolver: Resolver) -> tuple[LayerSpec, ...]:
    return parse_layers(pattern, resolver) if isinstance(pattern, str) else tuple(pattern)
