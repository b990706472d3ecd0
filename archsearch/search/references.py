"""References: the architectures that every search measures beside its candidates, exempt from the budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from archsearch.arch import ArchSpec, whole_pattern
from archsearch.composition import refusal
from archsearch.errors import OptionsError, SpecError, UnknownNameError, listing
from archsearch.layer import LayerSpec
from archsearch.registry import Registry
from archsearch.search.space import Space

FULL = "full"
"""The mixer by which candidates are judged: a foreign one of the family "full" does not stand in for it."""


def reference_archs(wanted: bool | Sequence[str], space: Space, registry: Registry) -> tuple[ArchSpec, ...]:
    """The references of a search, each once: those that the patterns `wanted` name, or for True the mixer ``full`` in
    every layer, where it is installed, and each mixer of the space that can stand in every layer.

    Raises `SpecError`, naming the key, for a pattern that cannot be read or has another number of layers.
    """
    if isinstance(wanted, bool):
        found = _usual(space, registry) if wanted else iter(())
    else:
        found = (_named(index, text, space, registry) for index, text in enumerate(wanted))
    return tuple({arch.digest: arch for arch in found}.values())


def baseline_of(wanted: str | None, space: Space, registry: Registry) -> ArchSpec:
    """The architecture that a comparison holds the others against, by default the first; raises `SpecError`."""
    if wanted is None:
        return next(space.all())
    try:
        found = whole_pattern(wanted, space.model, space.n_layers, registry)
    except SpecError as error:
        raise SpecError(f"compare.baseline: {error}") from None
    if found not in space.all():
        raise SpecError(
            f'compare.baseline = "{wanted}" is none of space.architectures: add it there, or name one of them'
        )
    return found


def trained_as(wanted: str, archs: Iterable[ArchSpec], space: Space, registry: Registry) -> ArchSpec:
    """The one of `archs` that a pattern or a digest names; raises `SpecError`."""
    found = {arch.digest: arch for arch in archs}
    if wanted in found:
        return found[wanted]
    digest = whole_pattern(wanted, space.model, space.n_layers, registry).digest
    if digest not in found:
        patterns = [arch.pattern(registry) for arch in found.values()]
        raise SpecError(f'"{wanted}" is none of the architectures: name one of {listing(patterns)}')
    return found[digest]


def _usual(space: Space, registry: Registry) -> Iterator[ArchSpec]:
    layers = [entry.reference for entry in space.entries.values()]
    if FULL not in {layer.mixer for layer in layers}:
        layers[:0] = _full_by_name(registry)
    for layer in layers:
        arch = ArchSpec(model=space.model, layers=(layer,) * space.n_layers)
        if _refusal(arch, registry) is None:
            yield arch


def _refusal(arch: ArchSpec, registry: Registry) -> str | None:
    """Why the layers cannot stand so, by what their plugins check or by what of their options is impossible there."""
    try:
        return refusal(arch, registry)
    except OptionsError as error:
        return str(error)


def _full_by_name(registry: Registry) -> list[LayerSpec]:
    try:
        return [LayerSpec.make(FULL, registry)] if registry.resolve(FULL).plugin.name == FULL else []
    except UnknownNameError:
        return []


def _named(index: int, text: str, space: Space, registry: Registry) -> ArchSpec:
    try:
        arch = whole_pattern(text, space.model, space.n_layers, registry)
    except SpecError as error:
        raise SpecError(f"search.references[{index}]: {error}") from None
    refused = _refusal(arch, registry)
    if refused is not None:
        raise SpecError(f'search.references[{index}] = "{text}": {refused}')
    return arch
