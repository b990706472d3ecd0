"""Measured: the pure ops of a mixer and its kernels, as plugins register them by hooks of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from archsearch.errors import PluginError, listing, nearest
from archsearch.mixer import MixerPlugin
from archsearch.version1 import Version1

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check


def _no_builds(arch: str) -> Iterable[Build]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Measured:
    """``ops()`` are the pure ops of a mixer, ``names`` those of ops that are named neither as it nor as a preset;
    ``builds(arch)`` its kernels on an architecture, ``checks()`` what proves the rows of their tables."""

    ops: Callable[[], Iterable[BenchOp]] = tuple
    names: tuple[str, ...] = ()
    builds: Callable[[str], Iterable[Build]] = _no_builds
    checks: Callable[[], Iterable[Check]] = tuple

    @property
    def has_kernels(self) -> bool:
        """Whether a plugin has registered any."""
        return self.builds is not _no_builds


class Measuring:
    """Takes what the measuring hooks of one plugin say of its mixers. Raises `PluginError` for a mixer that the plugin
    does not register, and for one that is said twice."""

    def __init__(self, mixers: Iterable[MixerPlugin[Any]]) -> None:
        self.found = {mixer.name: _of_version_1(mixer) for mixer in mixers}

    def ops(self, mixer: str, ops: Callable[[], Iterable[BenchOp]], *, names: tuple[str, ...] = ()) -> None:
        """What the hook `register_ops` is given."""
        self._check("register_ops", mixer, ops, taken=self._of(mixer, "register_ops").ops is not tuple)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise PluginError(f'register_ops of "{mixer}": names = {names!r}: write a tuple of names')
        self.found[mixer] = replace(self.found[mixer], ops=ops, names=names)

    def kernels(
        self, mixer: str, builds: Callable[[str], Iterable[Build]], *, checks: Callable[[], Iterable[Check]] = tuple
    ) -> None:
        """What the hook `register_kernels` is given."""
        taken = self._of(mixer, "register_kernels").has_kernels
        self._check("register_kernels", mixer, builds, taken=taken)
        if not callable(checks):
            raise PluginError(f'register_kernels of "{mixer}": checks = {checks!r}: pass a function')
        self.found[mixer] = replace(self.found[mixer], builds=builds, checks=checks)

    def _of(self, mixer: str, hook: str) -> Measured:
        if mixer not in self.found:
            raise PluginError(
                f'{hook} names the mixer "{mixer}"{nearest(str(mixer), self.found)}, which this plugin does not '
                f"register: its mixers are {listing(self.found)}"
            )
        return self.found[mixer]

    def _check(self, hook: str, mixer: str, given: object, *, taken: bool) -> None:
        if not callable(given):
            raise PluginError(f'{hook} of "{mixer}" was given {given!r}: pass a function')
        if taken:
            raise PluginError(f'{hook} registers "{mixer}" twice')


def _of_version_1(mixer: MixerPlugin[Any]) -> Measured:
    if isinstance(mixer, Version1):
        builds = mixer.builds if hasattr(mixer.plugin, "kernels") else _no_builds
        return Measured(ops=mixer.ops, names=mixer.op_names, builds=builds)
    return Measured()
