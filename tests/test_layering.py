"""Imports run downward only and in no circle, and heavy libraries live in the rooms that own them.

docs/architecture.md has the floors in words. What an import is, house.py says; imports for types alone and those inside
of functions count like any other. Exceptions are named one by one, each with its reason, and one that is no longer
needed fails.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable, Mapping

import pytest
from house import Import, imports, modules, modules_of, parsed

FLOORS: list[set[str]] = [
    {"errors", "numbers", "units", "printable", "ray_settings", "secrets_file", "streams", "version", "waiting"},
    {"shapes", "amounts", "options", "systems"},
    {"layer"},
    {"mixer", "evidence"},
    {"kernels"},
    {"hookspecs", "notation", "attention_cost", "rotation", "version1"},
    {"arch", "measured"},
    {"source"},
    {"registration", "figures", "evaluator"},
    {"composition", "composite", "value_residual"},
    {"costs", "registry", "exercise", "laws", "recipe"},
    {"op_forms"},
    {"measurement"},
    {"storage", "analysis", "bench.results"},
    {"ops"},
    {"model", "tasks"},
    {"training", "bench", "proving"},
    {"search"},
    {"jobs"},
    {"api", "testing"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ALONE = {"storage", "analysis", "bench.results"}
"""Rooms that import nothing of their own floor."""

NOT_A_ROOM = {"testing", ""}
"""`testing` imports as a plugin author does, the root among it, whose names are for users."""

OWNERS = {
    "torch": {"kernels", "ops", "model", "training", "bench", "proving", "testing"},
    "triton": {"kernels", "ops", "proving"},
    "ray": {"search", "jobs"},
    "optuna": {"search", "analysis"},
    "prometheus_client": {"search"},
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "typer": {"cli"},
    "pytest": {"testing"},
    "rich": {"cli"},
    "streamlit": set(),
    "plotly": set(),
}
DASHBOARD_MAY = {
    "storage",
    "analysis",
    "costs",
    "arch",
    "layer",
    "notation",
    "registry",
    "mixer",
    "measurement",
    "units",
    "errors",
    "exercise",
    "bench.results",
    "evidence",
    "op_forms",
    "printable",
    "recipe",
}
DASHBOARD_MAY_READ = ("archsearch.search.spec", "archsearch.search.tables")
"""Of rooms that the dashboard may not know otherwise, modules and folders: the schema of a spec is plain data."""


TYPES_ABOVE: Mapping[tuple[str, str], str] = {
    ("archsearch.layer", "archsearch.mixer"): "a name resolves to a plugin",
    ("archsearch.mixer", "archsearch.model"): "build() gives a Mixer",
    ("archsearch.version1", "archsearch.model"): "build() gives a Mixer",
    **{
        ("archsearch.evaluator", f"archsearch.{room}"): "an evaluator is given a trained model and its task"
        for room in ("model", "tasks")
    },
    **{
        (f"archsearch.{module}", "archsearch.bench.op"): "ops that are measured come in by a hook"
        for module in ("hookspecs", "measured", "version1")
    },
    **{
        (f"archsearch.{module}", "archsearch.proving"): "checks of kernels come in by a hook"
        for module in ("hookspecs", "measured")
    },
    **{
        (f"archsearch.analysis.{module}", "archsearch.storage"): "analyses records that the store gives"
        for module in (
            "answer",
            "comparison",
            "ladder_reading",
            "matching_record",
            "objectives",
            "repeat",
            "sweep",
            "validity",
        )
    },
}
"""Imports for types alone that no floor would allow: what the contract of a plugin must name before it can be built,
and what the analysis is handed."""

CLOSES_A_CIRCLE: Mapping[tuple[str, str], str] = {
    ("archsearch.testing.conformance", "archsearch.testing.recording"): "the device is an option of the recording",
    ("archsearch.testing.toy_layer", "archsearch.testing.toy"): "a toy to copy has its options beside its plugin",
    ("archsearch_plugins.moba.triton.launch.step", "archsearch_plugins.moba.ops"): "shares what a step is given",
    ("archsearch_plugins.nsa.triton.launch.step", "archsearch_plugins.nsa.step"): "shares what a step is given",
}
"""Imports, from a module to one, without which the circle that each closes would be open. None is to be added."""


def room_of(name: str) -> str:
    """The room that a dotted name below the package lies in: of those that have a floor, the one deepest inside."""
    below = name.split(".")[1:]
    return next((room for room in (".".join(below[:2]), *below[:1]) if room in FLOOR_OF), below[0] if below else "")


def wrong(room: str, target: str) -> str | None:
    """What is wrong with an import of one room by another, None where nothing is."""
    if FLOOR_OF[target] > FLOOR_OF[room]:
        return "lies above"
    if FLOOR_OF[target] == FLOOR_OF[room] and target != room and room in ALONE:
        return "lies beside"
    return None


def in_the_core(found: Iterable[Import]) -> list[Import]:
    """The imports of modules of the core, its root apart."""
    return [one for one in found if one.name.startswith("archsearch.")]


@pytest.mark.parametrize("name", modules_of("archsearch"))
def test_imports_run_downward(name: str) -> None:
    room = room_of(name)
    if room in NOT_A_ROOM:
        return
    assert room in FLOOR_OF, f"{name} stands on no floor: add it to FLOORS"
    for found in imports(name):
        assert found.name != "archsearch", f"{name}, line {found.line}: the root is for users"
    for found in in_the_core(imports(name)):
        target = room_of(found.name)
        assert target in FLOOR_OF, f"{name} imports {found.name}, which stands on no floor: add it to FLOORS"
        reason = wrong(room, target)
        allowed = found.typed and (name, found.name) in TYPES_ABOVE
        assert reason is None or allowed, f"{name}, line {found.line}, must not import {found.name}: it {reason}"


@pytest.mark.parametrize(("name", "target"), TYPES_ABOVE)
def test_every_exception_for_types_is_needed(name: str, target: str) -> None:
    assert any(found.typed and found.name == target for found in imports(name))
    assert wrong(room_of(name), room_of(target)), f"{name} may import {target}: take it out of TYPES_ABOVE"


def arrows(exceptions: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Every module with those of the house that it imports, but for the exceptions."""
    left_out = set(exceptions)
    return {
        name: {one.name for one in imports(name) if one.name in modules() and (name, one.name) not in left_out} - {name}
        for name in modules()
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of modules, each of which imports the one before; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(arrows([*TYPES_ABOVE, *CLOSES_A_CIRCLE])) == []


@pytest.mark.parametrize("arrow", CLOSES_A_CIRCLE, ids=" -> ".join)
def test_every_exception_for_a_circle_is_needed(arrow: tuple[str, str]) -> None:
    others = [*TYPES_ABOVE, *(other for other in CLOSES_A_CIRCLE if other != arrow)]
    found = circle(arrows(others))
    assert set(arrow) <= set(found), f"{' -> '.join(arrow)} closes no circle any more: take it out of CLOSES_A_CIRCLE"


@pytest.mark.parametrize("name", modules_of("archsearch"))
def test_the_core_imports_by_absolute_names(name: str) -> None:
    relative = [node.lineno for node in ast.walk(parsed(name)) if isinstance(node, ast.ImportFrom) and node.level]
    assert relative == []


@pytest.mark.parametrize("name", modules_of("archsearch"))
def test_heavy_libraries_have_owners(name: str) -> None:
    for found in imports(name):
        owners = OWNERS.get(found.top)
        assert owners is None or room_of(name) in owners, f"{name}, line {found.line}, must not import {found.name}"


@pytest.mark.parametrize("name", modules_of("archsearch_plugins"))
def test_plugins_import_the_core_and_never_each_other(name: str) -> None:
    own = ".".join(name.split(".")[:2])
    for found in imports(name):
        ours = found.name == own or found.name.startswith(f"{own}.")
        assert found.top != "archsearch_plugins" or ours, f"{name}, line {found.line}, reaches out of its own plugin"


def needs_no_torch(name: str) -> bool:
    """Whether a module of a plugin is read by whoever costs or shows it: the plugin itself, and its costs."""
    return name.count(".") == 1 or name.endswith(".cost")


@pytest.mark.parametrize("name", [name for name in modules_of("archsearch_plugins") if needs_no_torch(name)])
def test_what_costs_and_pages_need_of_a_plugin_loads_no_torch(name: str) -> None:
    for found in imports(name):
        heavy = found.top == "torch" or found.name.startswith(("archsearch.model", "archsearch.ops"))
        assert not heavy or found.typed or found.inside, f"{name} needs {found.name} for what must not"


@pytest.mark.parametrize("name", modules_of("archsearch_dashboard"))
def test_dashboard_imports_what_needs_neither_torch_nor_a_cluster(name: str) -> None:
    for found in imports(name):
        assert found.top not in {*OWNERS} - {"streamlit", "plotly"}, f"{name} imports {found.name}"
        allowed = found.name.startswith(DASHBOARD_MAY_READ) or room_of(found.name) in DASHBOARD_MAY
        assert found.top != "archsearch" or allowed, f"{name} imports {found.name}"


@pytest.mark.parametrize("name", [*modules_of("archsearch_dashboard"), *modules_of("archsearch_plugins")])
def test_what_is_installed_by_another_name_imports_itself_by_relative_names(name: str) -> None:
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert not (node.module or "").startswith(("archsearch_dashboard", "archsearch_plugins"))


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
    loaded = loaded_by("import archsearch.bench.results.frames, archsearch.bench.results.targets")
    assert not loaded & (HEAVY - {"pandas"})


def test_dashboard_loads_neither_torch_nor_ray() -> None:
    loaded = loaded_by(
        "import archsearch_dashboard.app\n"
        "from archsearch_dashboard import connection\n"
        "from archsearch_dashboard.queries import mixers\n"
        "mixers.mixers_table(connection.registry())"
    )
    assert not loaded & {"torch", "ray", "optuna", "typer", "matplotlib"}


def test_what_a_machine_without_ray_needs_imports_without_it() -> None:
    code = "import archsearch.training, archsearch.model, archsearch.tasks, archsearch.bench, archsearch.testing"
    assert not loaded_by(code) & {"ray", "optuna", "sqlalchemy", "streamlit"}
