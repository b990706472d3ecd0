"""What stands beside another library runs where that library is: `make test-peers` selects its marker alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PEERS = {"transformers", "fla"}


def peers_of(tree: ast.Module) -> Iterator[str]:
    """The libraries of the peers' environments that a test file asks for, by `pytest.importorskip`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            name = ast.literal_eval(node.args[0]).partition(".")[0]
            if name in PEERS:
                yield name


def marks_of(tree: ast.Module) -> str:
    """What the whole file is marked with, as it is written."""
    marks = [node.value for node in tree.body if isinstance(node, ast.Assign) and _named(node) == "pytestmark"]
    return ast.unparse(marks[0]) if marks else ""


def _named(node: ast.Assign) -> str:
    return ast.unparse(node.targets[0])


def test_every_file_that_asks_for_a_peer_is_marked_as_one() -> None:
    trees = {path.name: ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_*.py")}
    asking = {name for name, tree in trees.items() if any(peers_of(tree))}
    assert {"test_memory_references.py", "test_fla_references.py", "test_whole_layers.py"} <= asking
    assert {name for name in asking if "pytest.mark.peers" not in marks_of(trees[name])} == set()


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports as it is read."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_files_of_peers_import_no_kernels_which_their_environments_cannot_run() -> None:
    trees = {path.name: ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_*.py")}
    marked = {name: set(imports_of(tree)) for name, tree in trees.items() if "peers" in marks_of(tree)}
    assert len(marked) >= 6
    kernels = {
        (name, module)
        for name, modules in marked.items()
        for module in modules
        if "triton" in module or module.startswith("kernel_")
    }
    assert kernels == set()
