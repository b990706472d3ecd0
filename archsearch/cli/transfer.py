"""``archsearch db import``, ``backup`` and ``restore``: searches on their way between databases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A search's name, as specs take it."""

if TYPE_CHECKING:
    from archsearch.storage.backup import Backup
    from archsearch.storage.imports import Imported


def register(group: typer.Typer) -> None:
    """Adds the commands to ``archsearch db``."""
    group.command("import")(import_)
    group.command("backup")(backup)
    group.command("restore")(restore)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The other database: a SQLite file, or the URL of a database.")
    ],
    search: Annotated[
        list[str] | None, typer.Option("--search", metavar="NAME", help="Only this search; may be repeated.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Another name for a search here; may be repeated."),
    ] = None,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Brings the searches of another database into this one.

    With their trials, measurements and metrics. Nothing is brought twice.
    """
    from archsearch.storage import hide, owner_here, storage_url
    from archsearch.storage.backup import file_url
    from archsearch.storage.imports import import_searches

    url, there = storage_url(storage), source if "://" in source else file_url(source)
    found = import_searches(url, there, names=search or (), renamed=_renamed(rename or []), owner=owner_here())
    if json:
        print_json({"database": hide(url), "source": hide(there), "searches": [_as_json(one) for one in found]})
    else:
        _show(found, hide(there), hide(url))
    if any(one.outcome == "refused" for one in found):
        raise typer.Exit(4)


def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The SQLite file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Writes the whole database to one SQLite file.

    Everything as it is at one moment, while searches go on. The file is a database by itself.
    """
    from archsearch.storage import hide, storage_url
    from archsearch.storage.backup import back_up

    url = storage_url(storage)
    made = back_up(url, Path(file).expanduser(), replace=force)
    _tell(made, hide(url), file, f"{hide(url)} is in {file}", json=json)


def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file that `archsearch db backup` wrote.")],
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Puts a backup into an empty database.

    Trials keep their numbers. Makes the tables where there are none.
    """
    from archsearch.storage import hide, storage_url
    from archsearch.storage.backup import restore as put_back

    url = storage_url(storage)
    made = put_back(url, Path(file).expanduser())
    _tell(made, hide(url), file, f"{file} is in {hide(url)}", json=json)


def _tell(made: Backup, database: str, file: str, where: str, *, json: bool) -> None:
    from archsearch.units import format_quantity

    counts = {"schema": made.version, "searches": made.searches, "trials": made.trials, "size_bytes": made.size_bytes}
    if json:
        print_json({"database": database, "file": file, **counts})
        return
    told = f"{made.searches:,} searches with {made.trials:,} trials, schema {made.version}"
    console().print(f"{where}: {told}, {format_quantity(made.size_bytes, unit='B')}", soft_wrap=True)


def _renamed(pairs: list[str]) -> dict[str, str]:
    from archsearch.errors import SpecError

    renamed: dict[str, str] = {}
    for pair in pairs:
        old, sign, new = pair.partition("=")
        if not old or not sign or _NAME.fullmatch(new) is None:
            raise SpecError(
                f'--rename "{pair}": write OLD=NEW, with the name there and the name here, at most 100 letters, digits '
                'and ".", "_" and "-"'
            )
        renamed[old] = new
    return renamed


def _show(found: list[Imported], there: str, here: str) -> None:
    out = console()
    if not found:
        out.print(f"{there} has no searches", soft_wrap=True)
        return
    rows = [[one.search, one.name, one.outcome, one.trials, one.reason] for one in found]
    out.print(table(["search", "name here", "outcome", ">trials", "remark"], rows, title=f"{there} into {here}"))


def _as_json(one: Imported) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(one)
