"""Laws that the mixers of an architecture break by their own word, and what follows for training and judging."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from archsearch.arch import ArchSpec
from archsearch.composition import mixers_of
from archsearch.layer import Resolver
from archsearch.mixer import Law

DECODING: tuple[Law, ...] = ("step", "split")
"""Laws by which the forward pass tells what decoding gives."""


@dataclass(frozen=True, kw_only=True)
class BrokenLaw:
    """A law that the plugin of a mixer declares broken, with its reason."""

    mixer: str
    law: Law
    reason: str

    def __str__(self) -> str:
        return f'mixer "{self.mixer}" breaks the law "{self.law}": {self.reason}'


def broken_laws(arch: ArchSpec, resolver: Resolver, among: Iterable[Law]) -> Iterator[BrokenLaw]:
    """Those of the laws `among` that mixers of `arch` declare broken, mixer by mixer as they first occur."""
    laws = tuple(among)
    for name in mixers_of(arch.layers, resolver):
        declared = resolver.resolve(name).plugin.broken_laws
        yield from (BrokenLaw(mixer=name, law=law, reason=declared[law]) for law in laws if law in declared)


def judged_by_steps(arch: ArchSpec, resolver: Resolver) -> str | None:
    """Why `arch` must be judged by decoding, None where its forward pass tells what decoding gives."""
    return "; ".join(map(str, broken_laws(arch, resolver, DECODING))) or None


def untrainable(arch: ArchSpec, resolver: Resolver) -> str | None:
    """Why `arch` can be neither trained nor searched, with the remedy; None where it can.

    A mixer that sees the future is shown the answers that it is asked for, so its figures say nothing.
    """
    found = next(broken_laws(arch, resolver, ["causal"]), None)
    if found is None:
        return None
    return f'{found}: it sees the tokens that it is asked for, so leave "{found.mixer}" out'
