"""Modules: where the code of a name lies and whose it is, found without importing anything."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import Literal

from archsearch.source.owners import owners_of
from archsearch.source.syntax import imports, parse, spelled

OURS = ("archsearch", "archsearch_plugins")
"""The packages of this distribution."""

_STANDARD = sys.stdlib_module_names | set(sys.builtin_module_names)

Whose = Literal["ours", "standard", "required", "loose", "owned", "editable"]


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module that was found: ``path`` is its file, None for a package without one; ``folders`` where its submodules
    lie, None for a plain module."""

    name: str
    path: str | None
    folders: Sequence[str] | None

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        return self.name if self.folders is not None else self.name.rpartition(".")[0]


@dataclass(frozen=True, kw_only=True)
class Read:
    """What a module's file says: the digest of what it computes, and the names that it imports."""

    digest: str
    imports: Sequence[str]


class Modules:
    """Modules by name, and their owners, as they are while this object lives."""

    def __init__(self) -> None:
        self._found: dict[str, Module | None] = {}
        self._owners: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> Module | None:
        """The module of that name; None where there is none, or none that lies in a file or a folder."""
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> Module | None:
        parent = name.rpartition(".")[0]
        folders: Sequence[str] | None = None
        if parent:
            found = self.find(parent)
            if found is None or found.folders is None:
                return None
            folders = found.folders
        spec = _loaded_spec(name) or _found_spec(name, folders)
        return None if spec is None else _module(name, spec, folders)

    def whose(self, name: str) -> Whose:
        """Whose code a module is: ours, Python's, what archsearch requires, a distribution's, or a loose file."""
        top = name.partition(".")[0]
        if top in OURS:
            return "ours"
        if top in _STANDARD:
            return "standard"
        if _canonical(top) in _required():
            return "required"  # before the owners, who take a tenth of a second to list for the first time
        owners = self.owners(name)
        if not owners:
            return "loose"
        if {_canonical(owner) for owner in owners} & _required():
            return "required"
        return "editable" if any(_editable(owner) for owner in owners) else "owned"

    def owners(self, name: str) -> frozenset[str]:
        """The distributions that install a module's top-level package."""
        top = name.partition(".")[0]
        if top not in self._owners:
            self._owners[top] = owners_of(top)
        return self._owners[top]


def _loaded_spec(name: str) -> ModuleSpec | None:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec if isinstance(spec, ModuleSpec) and (spec.has_location or spec.submodule_search_locations) else None


def _found_spec(name: str, folders: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, folders)
        except Exception:  # the boundary to foreign finders: one that fails knows no such module
            continue
        if spec is not None:
            return spec
    return None


def _module(name: str, spec: ModuleSpec, parents: Sequence[str] | None) -> Module | None:
    locations = spec.submodule_search_locations
    if not spec.has_location and locations is None:
        return None
    folders = None if locations is None else _folders(name, locations, parents)
    return Module(name=name, path=spec.origin if spec.has_location else None, folders=folders)


def _folders(name: str, locations: Sequence[str], parents: Sequence[str] | None) -> Sequence[str]:
    """The folders of a package; those of a namespace package whose parent is not loaded are looked for."""
    try:
        return tuple(locations)
    except KeyError:
        leaf = name.rpartition(".")[2]
        return tuple(str(Path(parent, leaf)) for parent in parents or () if Path(parent, leaf).is_dir())


def read(module: Module, aside: frozenset[str] = frozenset()) -> Read:
    """What a module's file says; raises `OSError` for one that cannot be read.

    A file that is not Python source, or that Python refuses, counts by its bytes.
    """
    if module.path is None:
        return Read(digest="", imports=())
    found = Path(module.path).stat()
    return _read(module.path, module.package, aside, found.st_mtime_ns, found.st_size)


def runs_as_read(module: Module, aside: frozenset[str], digest: str) -> bool:
    """Whether this process may run a module as `digest` has it: not where its file has changed since the module was
    first read here and the module is loaded, unless it was loaded anew (`importlib.reload`)."""
    key = module.name, module.path, aside
    loaded = getattr(sys.modules.get(module.name), "__spec__", None)
    first, known = _first_read.get(key, (None, digest))
    if loaded is None or known == digest or (first is not None and first is not loaded):
        _first_read[key] = loaded, digest
        return True
    _first_read[key] = loaded, known
    return False


_first_read: dict[tuple[str, str | None, frozenset[str]], tuple[object, str]] = {}
"""By module, its file and what is left out of it: the spec it was loaded by, None before it is, and its digest then."""


@lru_cache(maxsize=4096)
def _read(path: str, package: str, aside: frozenset[str], _changed: int, _size: int) -> Read:
    content = Path(path).read_bytes()
    if not path.endswith(".py"):
        return Read(digest=hashlib.sha256(content).hexdigest(), imports=())
    try:
        tree = parse(content, aside)
    except (SyntaxError, ValueError, RecursionError):
        return Read(digest=hashlib.sha256(content).hexdigest(), imports=())
    text, importing = spelled(tree)
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return Read(digest=digest, imports=tuple(dict.fromkeys(imports(importing, package))))


def version_of(owner: str) -> str:
    """The version of a distribution."""
    return _distribution(owner).version


@cache
def _required() -> frozenset[str]:
    """What archsearch itself requires, extras included: the versions that ran are recorded beside a result."""
    try:
        lines = requires("archsearch") or ()
    except PackageNotFoundError:
        lines = ()
    named = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
    return frozenset({_canonical(found.group()) for found in named if found} | {"torch", "numpy", "triton"})


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _editable(owner: str) -> bool:
    text = _distribution(owner).read_text("direct_url.json")
    try:
        return bool(json.loads(text or "{}").get("dir_info", {}).get("editable"))
    except ValueError:
        return False


def _distribution(name: str) -> Distribution:
    return distribution(name)
