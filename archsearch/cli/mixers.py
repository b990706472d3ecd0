"""``archsearch mixers``: what can be searched over, and the options of one mixer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, console, print_json, table
from archsearch.errors import UnknownNameError, listing, nearest

if TYPE_CHECKING:
    from archsearch.analysis.catalogue import Entry
    from archsearch.registry import Registry


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("mixers")(mixers)


def mixers(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A mixer or a preset: its options, and the presets of its mixer."),
    ] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only those of a family, such as linear.")] = None,
    json: JsonFlag = False,
) -> None:
    """Every mixer and preset: its family, rule, source, and how its state grows with T tokens.

    With a NAME, what each option of it means, its type, its default under that name, and what a search chooses from
    unless it is narrowed; and the presets of its mixer.
    """
    from archsearch.registry import load_registry

    registry = load_registry()
    if name is not None:
        _one(name, registry, json=json)
    else:
        _all(registry, family, json=json)


def _all(registry: Registry, family: str | None, *, json: bool) -> None:
    from archsearch.analysis.catalogue import catalogue

    entries = catalogue(registry)
    families = sorted({entry.family for entry in entries})
    if family is not None and family not in families:
        raise UnknownNameError(f'unknown family "{family}"{nearest(family, families)}: known are {listing(families)}')
    kept = [entry for entry in entries if family in (None, entry.family)]
    if json:
        print_json([asdict(entry) for entry in kept])
    else:
        console().print(_listed(kept))


def _listed(entries: Iterable[Entry]) -> Any:
    rows = [(one.family, one.name, one.rule, one.source, one.growth) for one in entries]
    return table(["family", "name", "rule", "published", "state"], rows)


def _one(name: str, registry: Registry, *, json: bool) -> None:
    from archsearch.analysis.catalogue import entry_of, options_of, presets_of
    from archsearch.printable import printable

    resolved = registry.resolve(name)
    mixer, fixed = resolved.plugin, resolved.preset
    entry = entry_of(name, registry)
    options, presets = options_of(name, registry), presets_of(mixer, registry)
    if json:
        found = {"options": [asdict(one) for one in options], "presets": [asdict(one) for one in presets]}
        print_json(asdict(entry) | {"version": registry.version_of(mixer.name), "fixes": dict(fixed)} | found)
        return
    out = console()
    of = "" if name == mixer.name else f", a preset of {mixer.name}"
    published = f" ({entry.source})" if entry.source else ""
    out.print(printable(f"{name}{of}, of the family {entry.family}: {entry.rule}{published}"), soft_wrap=True)
    rows = [(one.option, one.meaning, one.type, one.default, ", ".join(one.searched)) for one in options]
    if rows:
        out.print(table(["option", "meaning", "type", "default", "searched"], rows))
    if presets:
        out.print(table(["preset", "rule", "published", "fixes"], [tuple(asdict(one).values()) for one in presets]))
