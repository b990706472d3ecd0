"""Composition: mixers made of mixers, and what an architecture's layers ask of each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import PluginError, SpecError
from archsearch.figures import Figures, part_shape_of, parts_of
from archsearch.layer import LayerInfo, LayerSpec, Resolver
from archsearch.notation import MAX_DEPTH
from archsearch.shapes import ModelShape


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A mixer with its place, and the sizes that it is built for."""

    layer: LayerSpec
    info: LayerInfo
    shape: ModelShape

    def figures(self, resolver: Resolver) -> Figures:
        """What its plugin says of it there."""
        return figures_at(self.layer, self.info, self.shape, resolver)


def placed(arch: ArchSpec, index: int, resolver: Resolver) -> Iterator[Placed]:
    """Layer `index` of `arch`, then the mixers that it is made of, and those that they are made of."""
    whole = Placed(layer=arch.layers[index], info=arch.layer_info(index, resolver), shape=arch.model.shape)
    yield from _with_parts(whole, resolver)


def _with_parts(whole: Placed, resolver: Resolver) -> Iterator[Placed]:
    yield whole
    plugin, options = resolver.resolve(whole.layer.mixer).plugin, whole.layer.options
    for index, part in enumerate(_parts(whole.layer, resolver, whole.info.part.count("."))):
        shape = part_shape_of(plugin, options, whole.shape, index)
        yield from _with_parts(Placed(layer=part, info=whole.info.part_at(index), shape=shape), resolver)


def with_parts(layer: LayerSpec, resolver: Resolver, depth: int = 0) -> Iterator[LayerSpec]:
    """A layer, then the mixers that it is made of, and those that they are made of."""
    yield layer
    for part in _parts(layer, resolver, depth):
        yield from with_parts(part, resolver, depth + 1)


def _parts(layer: LayerSpec, resolver: Resolver, depth: int) -> tuple[LayerSpec, ...]:
    """Raises `PluginError` for a mixer that is made of itself without end."""
    parts = parts_of(resolver.resolve(layer.mixer).plugin, layer.options)
    if parts and depth >= MAX_DEPTH:
        raise PluginError(f'mixer "{layer.mixer}": parts() nest more than {MAX_DEPTH} deep: it is made of itself')
    return parts


def mixers_of(layers: Iterable[LayerSpec], resolver: Resolver) -> tuple[str, ...]:
    """The mixers of layers and of their parts, each once, as they first occur."""
    found = (part.mixer for layer in dict.fromkeys(layers) for part in with_parts(layer, resolver))
    return tuple(dict.fromkeys(found))


def reads_pattern(layer: LayerSpec, resolver: Resolver) -> bool:
    """Whether a layer, or a part of it, depends on the layers around it."""
    return any(resolver.resolve(part.mixer).plugin.reads_pattern for part in with_parts(layer, resolver))


def short_conv_of(layer: LayerSpec, model: ModelSpec, resolver: Resolver) -> int:
    """Width of the backbone's short convolution in front of a layer, 0 where it has none or the mixer wants none."""
    return model.short_conv if resolver.resolve(layer.mixer).plugin.short_conv else 0


def refusal(arch: ArchSpec, resolver: Resolver) -> str | None:
    """Why layers of `arch` cannot stand where they do, None where they can."""
    for index, layer in enumerate(arch.layers):
        try:
            arch.model.of_layer(layer)
        except SpecError as error:
            return f"layer {index}: {error}"
        for part in placed(arch, index, resolver):
            reason = part.figures(resolver).refusal()
            if reason is not None:
                return f'mixer "{part.layer.mixer}", layer {index}: {reason}'
    return None


def check_arrangement(arch: ArchSpec, resolver: Resolver) -> None:
    """Raises `SpecError` where layers of `arch` cannot stand as they do."""
    reason = refusal(arch, resolver)
    if reason is not None:
        raise SpecError(f"{reason}: change the pattern {arch.pattern(resolver)}")


def figures_of(layer: LayerSpec, arch: ArchSpec, index: int, resolver: Resolver) -> Figures:
    """What the plugin of `layer` says of it in layer `index` of `arch`."""
    return figures_at(layer, arch.layer_info(index, resolver), arch.model.shape, resolver)


def figures_at(layer: LayerSpec, info: LayerInfo, shape: ModelShape, resolver: Resolver) -> Figures:
    """What the plugin of a layer, or of a part of one, says of it where it stands."""
    return Figures(resolver.resolve(layer.mixer).plugin, layer.options, shape, info)
