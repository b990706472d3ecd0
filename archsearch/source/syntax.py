"""Syntax: what a module's text computes, without comments, docstrings and positions, and the modules that it names."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

ASIDE = frozenset({"kernels", "bench_ops"})
"""Methods of a plugin of version 1 that compile ahead or measure speed: no trained model is made by them."""

ASIDE_HOOKS = frozenset({"register_kernels", "register_ops"})
"""Functions of a module that do so since version 2."""

IMPORTERS = frozenset({"import_module", "__import__"})
_IMPORTING = frozenset({ast.Import, ast.ImportFrom, ast.Call})
_IMPLIED = frozenset({"ctx", "kind", "type_comment"})
"""Fields that follow from the place of a node, or from how a constant is written."""


def parse(text: str | bytes, aside: Iterable[str] = ()) -> ast.Module:
    """The tree of a module without what never runs when a model is trained: blocks under ``if TYPE_CHECKING``, and of
    the classes named in `aside` the methods in `ASIDE`. Raises `SyntaxError`."""
    tree = ast.parse(text)
    _prune(tree, frozenset(aside))
    return tree


def _prune(node: ast.AST, aside: frozenset[str]) -> None:
    """Only statements hold what is left out, so that expressions are not walked."""
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list):
            setattr(node, name, [kept for statement in body for kept in _kept(node, statement, aside)])
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        _prune(part, aside)


def _kept(parent: ast.AST, node: ast.stmt, aside: frozenset[str]) -> Iterator[ast.stmt]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring, or one of an attribute
    if isinstance(node, ast.If) and _type_checking(node.test):
        for statement in node.orelse:
            yield from _kept(parent, statement, aside)
    elif not _is_aside(parent, node, aside):
        _prune(node, aside)
        yield node


def _is_aside(parent: ast.AST, node: ast.stmt, aside: frozenset[str]) -> bool:
    if isinstance(parent, ast.Module):
        return _name(node) in ASIDE_HOOKS
    return isinstance(parent, ast.ClassDef) and parent.name in aside and _name(node) in ASIDE


def _name(node: ast.stmt) -> str:
    return node.name if isinstance(node, ast.FunctionDef) else ""


def _type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def spelled(tree: ast.AST) -> tuple[str, list[ast.AST]]:
    """A tree as text, and its nodes that may import something.

    The text has no positions and no empty fields: newer Pythons add such fields to old syntax.
    """
    said: list[str] = []
    importing: list[ast.AST] = []
    _spell(tree, said.append, importing)
    return " ".join(said), importing


def _spell(node: object, say: Callable[[str], None], importing: list[ast.AST]) -> None:
    if isinstance(node, ast.AST):
        kind = type(node)
        if kind in _IMPORTING:
            importing.append(node)
        say(f"{kind.__name__}(")
        for name in kind._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and name not in _IMPLIED:
                say(name)
                _spell(value, say, importing)
        say(")")
    elif isinstance(node, list):
        say("[")
        for part in node:
            _spell(part, say, importing)
        say("]")
    else:
        say(repr(node))


def imports(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """The absolute names that nodes import; `package` is what relative ones start from.

    ``from a import b`` gives ``a`` and ``a.b``, which may be no module. A call of ``import_module`` counts where the
    name is written out.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in IMPORTERS and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield absolute(named.value, _anchor(node, package))


def absolute(name: str, package: str) -> str:
    """``..x`` seen from the package ``a.b`` is ``a.x``."""
    stem = name.lstrip(".")
    level = len(name) - len(stem)
    if not level:
        return stem
    parts = package.split(".")
    base = parts[: len(parts) - level + 1]
    return ".".join([*base, stem] if stem else base)


def _anchor(call: ast.Call, package: str) -> str:
    given = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "package")]
    if given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str):
        return given[0].value
    return package


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
