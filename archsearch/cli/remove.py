"""``archsearch rm`` and ``prune``: searches that nobody needs any more."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, tell

if TYPE_CHECKING:
    from archsearch.storage import Holding, Store

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")]
_UNITS = {"h": 1 / 24, "d": 1, "w": 7, "y": 365}
_LISTED = 20
"""Names that are told one by one."""


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("rm")(rm)
    app.command("prune")(prune)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of searches.")],
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Removes searches with all that is theirs.

    Says what goes, and asks. The rungs of a ladder go with it, and those above a rung with that. A search that runs is
    refused. What other searches took from these stays with them. Checkpoints on this machine go too; where a spec names
    a store for them, that is told.
    """
    from archsearch.analysis.ladder_reading import rungs_above
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), create=False) as store:
        named = list(dict.fromkeys(names))
        above = rungs_above(store.searches(), named)
        _remove(store, [*named, *above], rungs=above, yes=yes, dry_run=dry_run, json=json)


def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="Searches that ended longer ago, as in 90d, 12w or 1y.")
    ],
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATES",
            help="Only those in these states, as in cancelled,failed; without it only archived ones.",
        ),
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="Whose searches; your own where it is left out.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="The searches of every owner.")] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Removes searches that ended long ago.

    Archived ones, or those in the states that are named. Says what goes, and asks. What a rung of a ladder stands on
    stays as long as that rung does.
    """
    from datetime import UTC, datetime

    from archsearch.analysis.ladder_reading import rungs_above
    from archsearch.errors import listing
    from archsearch.storage import Store, outdated, owner_here, storage_url

    age, states = _age(older_than), _states(state)
    whose = owner or owner_here()
    with Store.open(storage_url(storage), create=False) as store:
        records = store.searches()
        found = outdated(records, now=datetime.now(UTC), older_than=age, states=states)
        names = [record.name for record in found if everyone or record.owner == whose]
        stood_on = [name for name in names if not set(rungs_above(records, [name])) <= set(names)]
        found = [record for record in found if record.name not in stood_on]
        names = [name for name in names if name not in stood_on]
        if stood_on and not json:
            console().print(f"kept, as rungs stand on it: {listing(stood_on)}", soft_wrap=True)
        if names or json:
            _remove(store, names, yes=yes, dry_run=dry_run, json=json)
            return
        others = f" ({len(found)} of other owners: --everyone)" if found else ""
        console().print(f"no search is to be removed{others}", soft_wrap=True)


def _remove(
    store: Store, names: list[str], *, yes: bool, dry_run: bool, json: bool, rungs: Collection[str] = ()
) -> None:
    held = store.holding(names)
    left = _left(store, names)
    if not json:
        for name in held.searches[:_LISTED]:
            console().print(_line(store, name, rung=name in rungs), soft_wrap=True)
        if len(held.searches) > _LISTED:
            console().print(f"and {len(held.searches) - _LISTED} more")
        console().print(_sentence(held), soft_wrap=True)
        for folder in left:
            console().print(f"  checkpoints: {folder}", soft_wrap=True)
    if not dry_run and names:
        if not yes:
            _ask(held)
        held = store.remove_searches(names)
        left = _without_checkpoints(left)
    if json:
        print_json({"database": store.url, "removed": not dry_run, **_as_json(held), "checkpoints": left})
    elif not dry_run:
        console().print(f"removed {len(held.searches)} searches from {store.url}", soft_wrap=True)


def _left(store: Store, names: Collection[str]) -> list[str]:
    """Where checkpoints of these searches lie, or may lie in a store that their spec names."""
    from archsearch.search.checkpoint_place import left_checkpoints

    found: list[str] = []
    for name in names:
        resources = store.search(name).spec.get("resources")
        place = resources.get("checkpoints") if isinstance(resources, dict) else None
        found += left_checkpoints(place if isinstance(place, str) else None, store.url, name)
    return found


def _without_checkpoints(folders: Collection[str]) -> list[str]:
    """Removes what lies on this machine; the others, which are told of."""
    from archsearch.search.checkpoint_place import remove_checkpoints

    left = [folder for folder in folders if not remove_checkpoints(folder)]
    for folder in left:
        tell(f"checkpoints may be left in {folder}: remove them there")
    return left


def _line(store: Store, name: str, *, rung: bool) -> str:
    record = store.search(name)
    whose = f", of {record.owner}" if record.owner else ""
    why = ", a rung that stands on it" if rung else ""
    return f"  {name}: {record.state_now()}{whose}, begun {record.created_at:%Y-%m-%d}{why}"


def _sentence(held: Holding) -> str:
    from archsearch.units import format_quantity

    lent = f"; {held.lent:,} results that other searches took from them stay there" if held.lent else ""
    return (
        f"{held.trials:,} trials, {held.measurements:,} measurements and {held.metrics:,} metrics, about "
        f"{format_quantity(held.size_bytes, unit='B')}, which the database uses for what comes next{lent}"
    )


def _ask(held: Holding) -> None:
    import sys

    from archsearch.errors import SpecError

    if not sys.stdin.isatty():
        raise SpecError("nobody can be asked here whether to remove them: add --yes")
    tell(f"Remove {len(held.searches)} searches? There is no way back but a backup. [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        tell("nothing was removed")
        raise typer.Exit(1)


def _as_json(held: Holding) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(held)


def _age(text: str) -> timedelta:
    from archsearch.errors import SpecError

    found = re.fullmatch(r"(\d{1,6})([hdwy])", text.strip())
    if found is None:
        raise SpecError(f'--older-than "{text}": write a number and h, d, w or y, as in 90d')
    return timedelta(days=int(found[1]) * _UNITS[found[2]])


def _states(text: str | None) -> list[str]:
    from archsearch.errors import SpecError, listing, nearest
    from archsearch.storage.records import SEARCH_STATES

    states = [state.strip() for state in (text or "").split(",") if state.strip()]
    known = [state for state in SEARCH_STATES if state != "running"]
    for state in states:
        if state not in known:
            raise SpecError(f"--state {state}: no such state{nearest(state, known)}: {listing(known)}")
    return states
