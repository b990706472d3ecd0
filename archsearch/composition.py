"""Composition: mixers made of mixers, and what an architecture's layers ask of each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from archsearch.arch import ArchSpec
from archsearch.errors import PluginError, SpecError
from archsearch.figures import Figures, parts_of
from archsearch.layer import LayerInfo, LayerSpec, Resolver
from archsearch.notation import MAX_DEPTH
from archsearch.shapes import ModelShape


def placed(
    layer: LayerSpec, info: LayerInfo, resolver: Resolver, depth: int = 0
) -> Iterator[tuple[LayerSpec, LayerInfo]]:
    """A layer that stands at `info`, then the mixers that it is made of, and those that they are made of, each with its
    place. Raises `PluginError` for a mixer that is made of itself without end."""
    if depth > MAX_DEPTH:
        raise PluginError(f'mixer "{layer.mixer}": parts() nest more than {MAX_DEPTH} deep: it is made of itself')
    yield layer, info
    for index, part in enumerate(parts_of(resolver.resolve(layer.mixer).plugin, layer.options)):
        yield from placed(part, info.part_at(index), resolver, depth + 1)


def with_parts(layer: LayerSpec, resolver: Resolver) -> Iterator[LayerSpec]:
    """A layer, then the mixers that it is made of, and those that they are made of."""
    return (part for part, _ in placed(layer, LayerInfo(), resolver))


def mixers_of(layers: Iterable[LayerSpec], resolver: Resolver) -> tuple[str, ...]:
    """The mixers of layers and of their parts, each once, as they first occur."""
    found = (part.mixer for layer in dict.fromkeys(layers) for part in with_parts(layer, resolver))
    return tuple(dict.fromkeys(found))


def reads_pattern(layer: LayerSpec, resolver: Resolver) -> bool:
    """Whether a layer, or a part of it, depends on the layers around it."""
    return any(resolver.resolve(part.mixer).plugin.reads_pattern for part in with_parts(layer, resolver))


def refusal(arch: ArchSpec, resolver: Resolver) -> str | None:
    """Why layers of `arch` cannot stand where they do, None where they can."""
    for index, layer in enumerate(arch.layers):
        for part, info in placed(layer, arch.layer_info(index, resolver), resolver):
            reason = figures_at(part, info, arch.model.shape, resolver).refusal()
            if reason is not None:
                return f'mixer "{part.mixer}", layer {index}: {reason}'
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
