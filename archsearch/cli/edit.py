"""``archsearch edit`` and ``archive``: what people say of a search, and which searches are listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the search, as `archsearch searches` lists it.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("edit")(edit)
    app.command("archive")(archive)


def edit(
    name: NameArgument,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="Add a tag; may be repeated.")] = None,
    untag: Annotated[
        list[str] | None, typer.Option("--untag", metavar="WORD", help="Take a tag away; may be repeated.")
    ] = None,
    note: Annotated[
        str | None, typer.Option("--note", metavar="TEXT", help='The note, instead of the one before; "" for none.')
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help='Whose the search is from now on; "" for nobody\'s.')
    ] = None,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Gives a search tags, a note or another owner.

    Without an option it shows them. A search may run meanwhile.
    """
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), create=False) as store:
        found = store.edit_search(name, tag=tag or (), untag=untag or (), note=note, owner=owner)
    _show(found, json=json)


def archive(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of searches.")],
    undo: Annotated[bool, typer.Option("--undo", help="Take them back into the lists.")] = False,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Takes searches out of the lists, without losing anything.

    `archsearch searches --all` lists them too, and every command knows them by name.
    """
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), create=False) as store:
        for name in names:
            store.search(name)  # all are there, or none is archived
        found = [store.archive_search(name, archived=not undo) for name in names]
    if json:
        print_json({"searches": [_as_json(record) for record in found]})
        return
    for record in found:
        told = "listed again" if record.archived_at is None else "archived: `archsearch searches --all` lists it"
        console().print(f"{record.name}: {told}", soft_wrap=True)


def _show(record: SearchRecord, *, json: bool) -> None:
    if json:
        print_json(_as_json(record))
        return
    out = console()
    for what, value in (("owner", record.owner), ("tags", ", ".join(record.tags)), ("note", record.note)):
        out.print(f"{what}: {value or 'none'}", soft_wrap=True)


def _as_json(record: SearchRecord) -> dict[str, Any]:
    return {
        "search": record.name,
        "owner": record.owner,
        "tags": list(record.tags),
        "note": record.note,
        "archived_at": None if record.archived_at is None else record.archived_at.isoformat(),
    }
