"""No function takes more than can be read at a call, nor is longer than a page: what belongs together is one value."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_PARAMETERS, MOST_LINES = 8, 60
FREE = ("triton.jit", "custom_op", "register_fake")
"""Decorators of functions whose parameters are flat because Triton or torch wants them so."""

PUBLIC = {"window_attention", "moba_attention", "nsa_attention", "linear_attention", "linear_attention_step"}
"""Ops that are called by keyword, each of which may be left out or stand alone."""

FILES = sorted([*(ROOT / "archsearch" / "ops").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])


def functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and not any(free in ast.unparse(decorator) for decorator in node.decorator_list for free in FREE)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_in_both_directions(path: Path) -> None:
    for node in functions(path):
        names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([name for name in names if name not in {"self", "cls", "ctx"}])
        assert count <= MOST_PARAMETERS or node.name in PUBLIC, f"{node.name} has {count} parameters"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        assert length <= MOST_LINES, f"{node.name} has {length} lines"


def test_public_ops_are_listed_for_a_reason() -> None:
    long = {
        node.name
        for path in FILES
        for node in functions(path)
        if len(node.args.args) + len(node.args.kwonlyargs) > MOST_PARAMETERS and "self" not in ast.unparse(node.args)
    }
    assert long == PUBLIC
