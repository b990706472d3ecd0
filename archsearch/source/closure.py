"""Closures: every module that code reaches by imports, and the digest of them; that of the core among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from archsearch.source.modules import Module, Modules, read, runs_as_read, version_of

CORE = (
    "archsearch.training.fit",
    "archsearch.training.evaluation",
    "archsearch.model",
    "archsearch.tasks.base",
)
"""Where training starts: what these reach decides every figure, whatever the mixer and the task."""

LEFT_OUT: Mapping[str, str] = {
    "archsearch": "names only",
    "archsearch.api": "calls what is digested",
    "archsearch.costs": "costs, which are computed anew",
    "archsearch.errors": "what a user is told",
    "archsearch.exercise": "judged anew from the architecture",
    "archsearch.figures": "costs, which are computed anew",
    "archsearch.hookspecs": "names of hooks",
    "archsearch.kernels.build": "compilation ahead of time",
    "archsearch.kernels.compiler": "compilation ahead of time",
    "archsearch.kernels.forms": "which form runs, which stands in the key",
    "archsearch.measurement": "the record of a result",
    "archsearch.notation": "names of architectures",
    "archsearch.printable": "what a user is told",
    "archsearch.registry": "names of plugins",
    "archsearch.tasks.builtin": "names only",
    "archsearch.tasks.resolve": "names of tasks",
    "archsearch.training": "names only",
    "archsearch.training.blame": "what a user is told of a run that diverged",
    "archsearch.training.forms": "which form runs, which stands in the key",
    "archsearch.training.key": "the key itself",
    "archsearch.training.memory": "refuses a training, and computes nothing of one",
    "archsearch.training.promises": "refuses a training, and computes nothing of one",
    "archsearch.units": "what a user is told",
}
"""Modules of archsearch that compute nothing of a figure, each with the reason; subpackages are named one by one."""

_ROOMS_LEFT_OUT = (
    "archsearch.analysis",
    "archsearch.bench",
    "archsearch.cli",
    "archsearch.evidence",
    "archsearch.jobs",
    "archsearch.proving",
    "archsearch.registration",
    "archsearch.search",
    "archsearch.source",
    "archsearch.storage",
    "archsearch.streams",
    "archsearch.testing",
)


def left_out(name: str) -> bool:
    """Whether a module of archsearch computes nothing of a figure: those in `LEFT_OUT`, and the rooms around
    training, which call it or read what it gave."""
    return name in LEFT_OUT or any(name == room or name.startswith(f"{room}.") for room in _ROOMS_LEFT_OUT)


class Closure:
    """Collects the modules that are reached; `add` may be called for several starts.

    A module of a distribution that is installed (and not editable) counts by that distribution's version, unless it
    is the one of `home`, the module that all starts from. What `covered` names counts elsewhere. ``stale`` are modules
    that run here as their files were before they were edited.
    """

    def __init__(self, modules: Modules, *, home: str = "archsearch", covered: Iterable[str] = ()) -> None:
        self._modules, self._covered = modules, frozenset(covered)
        self._home = modules.owners(home) if modules.whose(home) == "owned" else frozenset()
        self.digests: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.stale: list[str] = []

    def add(self, name: str, aside: frozenset[str] = frozenset()) -> None:
        """Adds a module and all that it reaches; raises `OSError` when a file cannot be read."""
        waiting = [(part, aside if part == name else frozenset[str]()) for part in _with_parents(name)]
        while waiting:
            part, dropped = waiting.pop()
            if part in self.digests or not self._counts(part):
                continue
            module = self._modules.find(part)
            if module is not None:
                waiting += [(reached, frozenset()) for reached in self._read(module, dropped)]

    def _counts(self, name: str) -> bool:
        """Whether a module counts by what it says; one of another distribution counts by that one's version."""
        whose = self._modules.whose(name)
        if whose == "ours":
            return name not in self._covered and not left_out(name)
        if whose == "owned":
            owners = self._modules.owners(name)
            if not owners & self._home:
                self.versions |= {owner: version_of(owner) for owner in owners}
                return False
        return whose in ("owned", "editable", "loose")

    def _read(self, module: Module, aside: frozenset[str]) -> Iterator[str]:
        said = read(module, aside)
        self.digests[module.name] = said.digest
        if not runs_as_read(module, aside, said.digest):
            self.stale.append(module.name)
        for name in dict.fromkeys(said.imports):
            yield from _with_parents(name)

    def digest(self, *more: str) -> str:
        """16 hexadecimal digits of the modules, of the versions of other distributions, and of `more`."""
        lines = [f"module {name} {digest}" for name, digest in self.digests.items()]
        lines += [f"distribution {name} {version}" for name, version in self.versions.items()]
        text = "\n".join([*sorted(lines), *more])
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _with_parents(name: str) -> Iterator[str]:
    """``a.b.c``, ``a.b`` and ``a``: importing one runs all."""
    while name:
        yield name
        name = name.rpartition(".")[0]


@cache
def _core() -> tuple[str, frozenset[str]]:
    closure = Closure(Modules())
    for name in CORE:
        closure.add(name)
    return closure.digest(), frozenset(closure.digests)


def core_digest() -> str:
    """The digest of what trains and measures every model, the same for all mixers and tasks; once a process."""
    return _core()[0]


def core_modules() -> frozenset[str]:
    """The modules that `core_digest` covers."""
    return _core()[1]
