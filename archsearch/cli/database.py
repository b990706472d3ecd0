"""``archsearch searches``, ``trials`` and ``db``: what a database holds, and its schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli import transfer
from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table

if TYPE_CHECKING:
    from pandas import DataFrame

    from archsearch.analysis.objectives import Objective


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("searches")(searches)
    app.command("trials")(trials)
    schema = typer.Typer(help="The database: its schema, backups, and searches from elsewhere.")
    schema.command("current")(current)
    schema.command("upgrade")(upgrade)
    transfer.register(schema)
    app.add_typer(schema, name="db", no_args_is_help=True)


def searches(
    every: Annotated[bool, typer.Option("--all", help="Archived ones too.")] = False,
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Only those of this owner.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="Only those with this tag; may be repeated.")
    ] = None,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Lists the searches of a database.

    Each with its state and how many trials it has. Owners are shown where there are several.
    """
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), read_only=True) as store:
        frame, database = store.searches_frame(), store.url
    listed = [
        row
        for row in _records(frame)
        if (every or row["archived_at"] is None)
        and (owner is None or row["owner"] == owner)
        and set(tag or ()) <= set(row["tags"])
    ]
    if json:
        print_json({"database": database, "searches": listed})
        return
    if not len(frame):
        told = f"{database} has no search yet: `archsearch run SPEC` makes one"
        console().print(told, soft_wrap=True)
        return
    _print_searches(listed, database)
    left_out = len(frame) - len(listed)
    if left_out:
        console().print(f"{left_out} more are archived or of other owners or tags: --all lists archived ones")


_COUNTS = ("trials", "complete", "pruned", "infeasible", "diverged", "failed")


def _print_searches(listed: list[dict[str, Any]], database: str) -> None:
    """A table with columns for owners, tags and archives where they tell searches apart, and remarks below it."""
    shown = {
        "owner": len({row["owner"] for row in listed}) > 1,
        "tags": any(row["tags"] for row in listed),
        "archived": any(row["archived_at"] for row in listed),
    }
    extra: dict[str, Callable[[dict[str, Any]], str]] = {
        "owner": lambda row: row["owner"] or "",
        "tags": lambda row: ", ".join(row["tags"]),
        "archived": lambda row: (row["archived_at"] or "")[:10],
    }
    names = [name for name in extra if shown[name]]
    rows = [
        [
            row["name"],
            row["state"],
            *(row[count] for count in _COUNTS),
            ", ".join(row["objectives"]),
            row["created_at"][:16].replace("T", " "),
            *(extra[name](row) for name in names),
        ]
        for row in listed
    ]
    columns = ["search", "state", *(f">{count}" for count in _COUNTS), "objectives", "begun (UTC)", *names]
    out = console()
    out.print(table(columns, rows, title=database))
    for row in listed:
        if row["note"]:
            out.print(f"{row['name']}: note: {row['note']}", soft_wrap=True)
        if row["state"] == "interrupted":
            out.print(f"{row['name']}: its driver is gone: `archsearch resume {row['name']}` goes on with it")
        elif row["reason"]:
            out.print(f"{row['name']}: {row['reason']}", soft_wrap=True)


def trials(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the search, as `archsearch searches` lists it.")],
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only trials in this state; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=0, help="The latest so many; 0: all.")] = 50,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Lists the trials of a search.

    Each with its figures on the validation split, and the reason where it is not complete.
    """
    from archsearch.analysis import points
    from archsearch.analysis.objectives import objectives_of
    from archsearch.storage import Store, storage_url

    _check_states(state or [])
    with Store.open(storage_url(storage), read_only=True) as store:
        search = store.search(name)
        frame, metrics = store.trials_frame(name), store.metrics_frame(name)
    objectives = objectives_of(search)
    alone = frame.assign(digest=frame["trial"], kind="search")
    values = points(alone, metrics, objectives, split="validation").set_index("trial")
    frame = frame.join(values[[objective.name for objective in objectives]], on="trial")
    found = frame[frame["state"].isin(state)] if state else frame
    shown = found.tail(limit) if limit else found
    if json:
        print_json({"search": name, "total": len(found), "split": "validation", "trials": _records(shown)})
    else:
        _print_trials(name, shown, len(found), objectives)


def _print_trials(name: str, shown: DataFrame, total: int, objectives: list[Objective]) -> None:
    out = console()
    if not total:
        out.print(f"{name} has no such trial")
        return
    rows = [
        [
            row["trial"],
            row["number"],
            row["kind"],
            row["state"],
            row["pattern"],
            *(objective.show(float(row[objective.name])) for objective in objectives),
            _remark(row),
        ]
        for row in shown.to_dict("records")
    ]
    names = [f">{objective.name}" for objective in objectives]
    out.print(table([">trial", ">no.", "kind", "state", "pattern", *names, "remark"], rows))
    out.print(f"{len(shown)} of {total} trials; figures are those of the validation split; `archsearch show TRIAL`")


def _remark(row: dict[Any, Any]) -> str:
    """The reason, and the layers whose sparsity did not act."""
    from archsearch.cli.remarks import not_exercised
    from archsearch.exercise import Unexercised

    reason = row["reason"] or ""
    found = map(Unexercised.from_json, row["unexercised"])
    return "; ".join([reason] * bool(reason) + not_exercised(found, reason))


def _check_states(states: list[str]) -> None:
    from archsearch.errors import SpecError, listing, nearest
    from archsearch.storage.records import TRIAL_STATES

    for state in states:
        if state not in TRIAL_STATES:
            raise SpecError(f"--state {state}: no such state{nearest(state, TRIAL_STATES)}: {listing(TRIAL_STATES)}")


def _records(frame: DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data, with null for what is not there."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(key): _plain(value) for key, value in row.items()} for row in plain.to_dict("records")]


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def current(storage: StorageOption = None, json: JsonFlag = False) -> None:
    """Shows the version of the schema, and the one that is needed."""
    from archsearch import storage as database

    url = database.storage_url(storage)
    version = database.current(url)
    if json:
        print_json({"database": database.hide(url), "current": version, "head": database.head()})
        return
    state = "up to date" if version == database.head() else f"this archsearch needs {database.head()}"
    console().print(f"{database.hide(url)}: schema {version or 'none'}, {state}", soft_wrap=True)


def upgrade(storage: StorageOption = None, json: JsonFlag = False) -> None:
    """Brings the schema up to date.

    Makes the database where there is none.
    """
    from archsearch import storage as database

    url = database.storage_url(storage)
    version = database.upgrade(url)
    if json:
        print_json({"database": database.hide(url), "current": version, "head": database.head()})
        return
    console().print(f"{database.hide(url)}: schema {version}", soft_wrap=True)
