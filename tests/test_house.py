"""Limits of the house: how long a function may be, and how many parameters it may have.

Device code and the custom operators around it take as many tensors and sizes as the card needs, a command has its
options, and a migration is one list of columns. There are no other exceptions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from house import modules, parsed

LONGEST, MOST = 60, 8
"""Lines of a function from its name on, its docstring included; parameters but self and cls."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions() -> dict[str, Function]:
    """Every function outside of device code and custom operators, by its module and what it stands in."""
    return {
        name: function
        for module in modules()
        for name, function in _functions(parsed(module), module)
        if not _is_kernel(function)
    }


def _functions(node: ast.AST, within: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, Function | ast.ClassDef)
        name = f"{within}.{child.name}" if named else within
        if isinstance(child, Function):
            yield name, child
        yield from _functions(child, name)


def _is_kernel(function: Function) -> bool:
    marks = [ast.unparse(mark) for mark in function.decorator_list]
    return any(word in mark for mark in marks for word in ("triton.jit", "custom_op", "register_fake"))


@cache
def commands() -> frozenset[str]:
    """The functions that typer turns into commands: those marked with ``command``, and those handed to it."""
    return frozenset(name for module in modules() for name in _commands(parsed(module), module))


def _commands(tree: ast.Module, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, Function) and any(".command(" in ast.unparse(mark) for mark in node.decorator_list):
            yield f"{module}.{node.name}"
        if isinstance(node, ast.Call) and ".command(" in ast.unparse(node.func) and node.args:
            yield f"{module}.{ast.unparse(node.args[0])}"


def lines(function: Function) -> int:
    """From its name to its end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """All of them, of every kind, but the instance or class."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len([one for one in named if one.arg not in ("self", "cls")])


def too_long() -> set[str]:
    """Functions beyond `LONGEST`."""
    migrations = "archsearch.storage.migrations.versions."
    return {
        name
        for name, function in functions().items()
        if lines(function) > LONGEST and not (name.startswith(migrations) and function.name == "upgrade")
    }


def too_many_parameters() -> set[str]:
    """Functions beyond `MOST`."""
    return {name for name, one in functions().items() if parameters(one) > MOST and name not in commands()}


def test_no_function_is_too_long() -> None:
    assert too_long() == set(), f"over {LONGEST} lines: part them where their nouns part"


def test_no_function_has_too_many_parameters() -> None:
    assert too_many_parameters() == set(), f"over {MOST}: what belongs together wants a name"


def test_what_is_measured_of_a_function() -> None:
    (node,) = ast.parse("@mark\ndef f(self, a, /, b, *more, c, **rest):\n    return a\n").body
    assert isinstance(node, ast.FunctionDef)
    assert (lines(node), parameters(node)) == (2, 5)


def test_the_commands_of_the_command_line_are_known() -> None:
    assert {
        "archsearch.cli.evaluate.evaluate",
        "archsearch.cli.run.run",
        "archsearch.cli.bench.bench_model",
    } <= commands()
    assert "archsearch.cli.run._resume" not in commands()
