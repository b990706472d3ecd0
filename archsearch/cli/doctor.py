"""``archsearch doctor``: whether this machine has what a search needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from archsearch.cli.machine import Check, machine_checks
from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table

if TYPE_CHECKING:
    from archsearch.op_forms import OpForm

LEAST_DISK_BYTES = 2**30
LEAST_SHM_BYTES = 200 * 2**20
_IMPORT_SECONDS = 120
_PROBES = {
    "torch": "import torch as m; n = m.cuda.get_device_name() if m.cuda.is_available() else None\n"
    "print(m.__version__); print(f'cuda, {n}' if n else f'cpu, {m.get_num_threads()} threads')",
    "ray": "import ray as m; print(m.__version__)",
    "triton": "import triton as m; print(m.__version__)",
}
_OPTIONAL = {
    "triton": "not installed: the mixers run on PyTorch (pip install 'archsearch[kernels]' where there is a GPU)"
}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor")(doctor)


def doctor(
    storage: StorageOption = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="URL", help="Look at the cluster whose Ray dashboard is there, not at this machine."
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Checks whether this machine, or a cluster, has what a search needs.

    Python, the libraries, the device, the plugins, the database, folders and the room in them, memory, encoding, and
    what the environment says of Ray. Of a cluster: versions, authentication, open ports, plugins and cards of every
    node, the database as it is reached there, and clocks. Exits with 1 when one is broken.
    """
    if address is None:
        checks = list(_checks(storage))
    else:
        from archsearch.cli.cluster_checks import cluster_checks

        checks = list(cluster_checks(address, storage))
    broken = [check for check in checks if check.status == "broken"]
    if json:
        print_json({"ok": not broken, "checks": [asdict(check) for check in checks]})
    else:
        out = console()
        out.print(table(["", "status", "detail"], [[check.name, check.status, check.detail] for check in checks]))
        out.print(f"broken: {', '.join(check.name for check in broken)}" if broken else "nothing is broken")
    if broken:
        raise typer.Exit(1)


def _checks(storage: str | None) -> Iterator[Check]:
    import platform

    from archsearch.version import __version__

    yield Check(name="archsearch", status="ok", detail=__version__)
    yield Check(name="python", status="ok", detail=f"{platform.python_version()} on {platform.platform()}")
    yield from _libraries()
    yield from _plugins()
    yield from _kernels()
    yield _database(storage)
    yield from machine_checks(LEAST_DISK_BYTES, LEAST_SHM_BYTES)


def _libraries() -> Iterator[Check]:
    """Each library in a process of its own, since one that is badly installed may take its process down."""
    import subprocess
    import sys

    pipes = {
        name: subprocess.Popen(
            [sys.executable, "-P", "-c", probe],  # -P: nothing of the current folder is imported
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name, probe in _PROBES.items()
    }
    for name, process in pipes.items():
        try:
            answer, errors = process.communicate(timeout=_IMPORT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            yield Check(name=name, status="broken", detail=f"did not import within {_IMPORT_SECONDS} s")
            continue
        lines = answer.split("\n")
        if process.returncode == 0:
            yield Check(name=name, status="ok", detail=lines[0])
            if name == "torch":
                yield Check(name="device", status="ok", detail=lines[1])
        else:
            yield _missing(name, process.returncode, errors)


def _missing(name: str, code: int, errors: str) -> Check:
    last = errors.strip().splitlines()[-1] if errors.strip() else f"import ended with code {code}"
    if name in _OPTIONAL and "ModuleNotFoundError" in last:
        return Check(name=name, status="note", detail=_OPTIONAL[name])
    return Check(name=name, status="broken", detail=f"{last}: install it again with the pins of constraints.txt")


def _plugins() -> Iterator[Check]:
    from archsearch.registry import load_registry

    for report in load_registry().reports():
        brought = ", ".join([*report.mixers, *report.tasks, *report.evaluators])
        detail = f"{report.distribution} {report.version}: {report.error or brought}"
        status: Literal["ok", "note", "broken"] = "broken"
        if report.status in ("ok", "blocked"):
            status = "ok" if report.status == "ok" else "note"
        yield Check(name=f"plugin {report.name}", status=status, detail=detail)


def _kernels() -> Iterator[Check]:
    """For each op that has kernels: which form its rows run in, and why PyTorch does."""
    from archsearch.errors import ArchsearchError
    from archsearch.evidence.kept import kept, kept_path, unreadable
    from archsearch.kernels.forms import policy
    from archsearch.op_forms import op_forms
    from archsearch.registry import load_registry

    try:
        rule, found = policy(), op_forms(load_registry(), load=True)
    except ArchsearchError as error:
        yield Check(name="kernels", status="broken", detail=str(error))
        return
    rows = len(kept())
    told = f"{rows} rows were put to the proof ({kept_path()})" if rows else "none was put to the proof here yet"
    fault = unreadable()
    yield Check(name="kernels", status="note" if fault else "ok", detail=f"{fault or told}; ARCHSEARCH_PROVE={rule}")
    ops: dict[str, list[OpForm]] = {}
    for one in found:
        if one.has_kernels:
            ops.setdefault(one.op, []).append(one)
    for op, forms in sorted(ops.items()):
        status: Literal["ok", "note"] = "note" if any(one.refused for one in forms) else "ok"
        yield Check(name=f"kernel {op}", status=status, detail="; ".join(one.text for one in forms))


def _database(storage: str | None) -> Check:
    from archsearch import storage as database
    from archsearch.errors import StorageError
    from archsearch.storage.url import ANOTHER, read_url, sqlite_path

    url = database.storage_url(storage)
    shown = database.hide(url)
    try:
        path = sqlite_path(read_url(url))
        if path is not None and not path.exists() and path.parent.is_dir():
            if not os.access(path.parent, os.W_OK):
                fault = f"{shown}: its folder cannot be written: {ANOTHER}"
                return Check(name="database", status="broken", detail=fault)
            return Check(name="database", status="note", detail=f"{shown}: none yet; `archsearch run SPEC` makes it")
        with database.Store.open(url, read_only=True) as store:
            count = len(store.searches())
    except StorageError as error:
        return Check(name="database", status="broken", detail=str(error))
    return Check(name="database", status="ok", detail=f"{shown}: schema {database.head()}, {count} searches")
