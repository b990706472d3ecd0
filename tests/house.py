"""The house as its files tell it: the modules of the core, the plugins and the dashboard, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS: Mapping[str, str] = {
    "archsearch": "archsearch",
    "archsearch_dashboard": "dashboard",
    "archsearch_plugins": "plugins",
}
"""The folder of each package that is installed, as in ``package-dir`` of pyproject.toml."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name: a module of the house where it is one, else as it is written.

    ``typed`` is of an import for types alone, ``inside`` of one that runs with a function and not with the module.
    """

    name: str
    line: int
    typed: bool
    inside: bool

    @property
    def top(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]


@cache
def modules() -> Mapping[str, Path]:
    """The file of every module, by its dotted name."""
    return {
        ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for package, folder in FOLDERS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def modules_of(package: str) -> list[str]:
    """The names of the modules of a package, its own first."""
    return [name for name in modules() if name == package or name.startswith(f"{package}.")]


@cache
def parsed(name: str) -> ast.Module:
    """The syntax of a module."""
    return ast.parse(modules()[name].read_text())


@cache
def imports(name: str) -> tuple[Import, ...]:
    """Everything that a module imports, wherever in it."""
    return tuple(_imports(parsed(name), name, typed=False, inside=False))


def _imports(node: ast.AST, name: str, *, typed: bool, inside: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for found in _names(child, name):
                yield Import(name=found, line=child.lineno, typed=typed, inside=inside)
            continue
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(child, name, typed=typed or for_types, inside=inside or function)


def _names(node: ast.Import | ast.ImportFrom, name: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    start = node.module or ""
    if node.level:
        here = name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]
        above = here.split(".")
        start = ".".join(filter(None, [*above[: len(above) - node.level + 1], start]))
    for alias in node.names:
        module = f"{start}.{alias.name}"
        yield module if module in modules() else start
