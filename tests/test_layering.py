"""Imports run downward only, and heavy libraries live in the rooms that own them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS: list[set[str]] = [
    {"errors", "numbers", "units", "printable", "ray_settings", "streams", "waiting"},
    {"mixer", "hookspecs", "kernels"},
    {"arch", "notation", "attention_cost", "conformance"},
    {"source"},
    {"registration", "figures"},
    {"costs", "registry", "exercise", "laws", "recipe"},
    {"measurement"},
    {"storage", "analysis", "speed"},
    {"ops"},
    {"model", "tasks"},
    {"training", "bench"},
    {"search"},
    {"jobs"},
    {"api"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NOT_A_ROOM = {"testing", "__init__"}
"""`testing` stands beside the house: it may import whatever a plugin author needs."""

OWNERS = {
    "torch": {"kernels", "ops", "model", "training", "bench", "testing"},
    "triton": {"kernels", "ops"},
    "ray": {"search", "jobs"},
    "optuna": {"search", "analysis"},
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "typer": {"cli"},
    "rich": {"cli"},
    "streamlit": set(),
    "plotly": set(),
}
DASHBOARD_MAY = {
    "storage",
    "analysis",
    "costs",
    "arch",
    "notation",
    "registry",
    "mixer",
    "measurement",
    "units",
    "errors",
    "exercise",
    "kernels",
    "speed",
    "conformance",
    "printable",
}


def modules() -> list[Path]:
    """Every module of the core package."""
    return sorted((ROOT / "archsearch").rglob("*.py"))


def room_of(path: Path) -> str:
    """The first part of a module's name below the package."""
    return path.relative_to(ROOT / "archsearch").parts[0].removesuffix(".py")


def imports(path: Path, *, also_lazy: bool = True) -> Iterator[str]:
    """Dotted names that a module imports; those under ``if TYPE_CHECKING`` count for nothing."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    nodes = ast.walk(tree) if also_lazy else iter(tree.body)
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: the core imports by absolute names"
            yield from (
                f"{node.module}.{alias.name}" if node.module == "archsearch" else node.module for alias in node.names
            )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    room = room_of(path)
    if room in NOT_A_ROOM:
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "archsearch" or len(parts) < 2 or parts[1] == "__version__":
            continue
        assert parts[1] in FLOOR_OF, f"{path} imports {name}, which stands on no floor: add it to FLOORS"
        above = FLOOR_OF[parts[1]] > FLOOR_OF[room]
        beside = FLOOR_OF[parts[1]] == FLOOR_OF[room] and parts[1] != room and room in {"storage", "analysis"}
        assert not above, f"{room} must not import {name}: it lies above"
        assert not beside, f"{room} must not import {name}: it lies beside"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_have_owners(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or room in owners, f"{room} must not import {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_the_core_and_never_each_other(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(ROOT / "plugins").parts) - 1
            assert node.level <= depth, f"{path} reaches out of its own plugin"
            assert not (node.module or "").startswith("archsearch_plugins"), f"{path} imports a plugin by name"
    top_level = set(imports_of_plugin(path))
    if path.name in {"__init__.py", "cost.py"}:
        assert not {"torch", "archsearch.model", "archsearch.ops"} & top_level, f"{path} needs torch for what must not"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "dashboard").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_dashboard_imports_what_needs_neither_torch_nor_a_cluster(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            assert parts[0] not in {*OWNERS, "archsearch_dashboard"} - {"streamlit", "plotly"}, f"{path} imports {name}"
            assert parts[0] != "archsearch" or parts[1] in DASHBOARD_MAY, f"{path} imports {name}"


def imports_of_plugin(path: Path) -> Iterator[str]:
    """Absolute names that a plugin's module imports when it is loaded, first or first two parts."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
            yield ".".join(node.module.split(".")[:2])


def loaded_by(code: str) -> set[str]:
    """Top-level packages that are loaded after `code` ran in a fresh interpreter."""
    probe = f"{code}\nimport sys\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"torch", "ray", "optuna", "sqlalchemy", "pandas", "matplotlib", "streamlit"}


def test_import_is_light() -> None:
    assert not loaded_by("import archsearch") & HEAVY


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, io, contextlib\nsys.argv = ['archsearch', '--help']\n"
        "from archsearch.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()"
    )
    assert not loaded_by(code) & HEAVY


def test_costing_imports_no_torch() -> None:
    code = (
        "import archsearch\n"
        "archsearch.cost('[kda kda kda full]*2 sliding moba nsa', context=4096, model={'d_model': 64, 'n_heads': 2})"
    )
    assert not loaded_by(code) & HEAVY


def test_reading_what_was_measured_loads_no_torch() -> None:
    loaded = loaded_by("import archsearch.speed.frames, archsearch.speed.targets")
    assert not loaded & (HEAVY - {"pandas"})


def test_dashboard_loads_neither_torch_nor_ray() -> None:
    loaded = loaded_by(
        "import archsearch_dashboard.app; from archsearch_dashboard import connection, queries_mixers\n"
        "queries_mixers.mixers_table(connection.registry())"
    )
    assert not loaded & {"torch", "ray", "optuna", "typer", "matplotlib"}


def test_what_a_machine_without_ray_needs_imports_without_it() -> None:
    code = "import archsearch.training, archsearch.model, archsearch.tasks, archsearch.bench, archsearch.testing"
    assert not loaded_by(code) & {"ray", "optuna", "sqlalchemy", "streamlit"}
