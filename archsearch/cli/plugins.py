"""``archsearch plugins``: what is installed, what it brings, what failed to load, and whose source has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol, cast

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table
from archsearch.printable import printable

if TYPE_CHECKING:
    from archsearch.registry import PluginReport, Registry
    from archsearch.source import Part


class PartsReader(Protocol):
    """The half of a store that is asked here."""

    def last_parts(self) -> Mapping[str, tuple[str, str, str]]:
        """By part ("mixer:linear"), the version and the digest that were last recorded, and by which search."""
        ...


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A mixer or task whose source differs from the one that a search recorded, though its version is the same."""

    part: str
    version: str
    search: str
    before: str
    now: str

    def __str__(self) -> str:
        name = self.part.partition(":")[2]
        return (
            f'{name}: its source has changed since search "{self.search}" (version {self.version} is the same): '
            "raise its version, or results of old and new source are told apart by digest alone"
        )


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("plugins")(plugins)


def plugins(storage: StorageOption = None, json: JsonFlag = False) -> None:
    """Every plugin with its mixers, presets, tasks, evaluators and status; one that failed shows its error.

    A mixer, task or evaluator whose source changed since a search of the database, while its version did not, is named.
    """
    from archsearch.registry import load_registry
    from archsearch.source import core_digest

    registry = load_registry()
    reports = registry.reports()
    parts = _parts(registry)
    with _existing_store(storage) as reader:
        found = changed(parts, {} if reader is None else _last_parts(reader))
    if json:
        listed = [{**asdict(report), "digests": _digests(report, parts)} for report in reports]
        told = [{**asdict(one), "message": str(one)} for one in found]
        print_json({"plugins": listed, "core": core_digest(), "changed": told})
    else:
        _print(reports, found)


def changed(parts: Iterable[Part], last: Mapping[str, tuple[str, str, str]]) -> list[Changed]:
    """The parts whose version is the one last recorded, and whose digest is another; those that cannot be told apart
    by a digest are left out."""
    from archsearch.source import UNKNOWN

    found = []
    for part in parts:
        version, digest, search = last.get(part.name, ("", "", ""))
        told = not (digest.startswith(UNKNOWN) or part.digest.startswith(UNKNOWN))
        if part.name != "core" and told and version == part.version and digest != part.digest:
            found.append(Changed(part=part.name, version=version, search=search, before=digest, now=part.digest))
    return found


def _parts(registry: Registry) -> tuple[Part, ...]:
    kinds = registry.mixers(), registry.tasks(), registry.evaluators()
    return registry.parts(*([one.name for one in kind] for kind in kinds))


def _digests(report: PluginReport, parts: Iterable[Part]) -> dict[str, str]:
    kinds = {"mixer": report.mixers, "task": report.tasks, "evaluator": report.evaluators}
    names = {f"{kind}:{name}" for kind, found in kinds.items() for name in found}
    return {part.name: part.digest for part in parts if part.name in names and report.status == "ok"}


@contextmanager
def _existing_store(storage: str | None) -> Iterator[PartsReader | None]:
    """The store of a database that exists; None where there is none, or none that can be opened: the listing needs
    neither, and `archsearch doctor` says what is wrong."""
    from archsearch.errors import StorageError
    from archsearch.storage import Store, storage_url
    from archsearch.storage.url import read_url, sqlite_path

    url = storage_url(storage)
    try:
        path = sqlite_path(read_url(url))
        store = None if path is not None and not path.exists() else Store.open(url, read_only=True)
    except StorageError:
        store = None
    try:
        yield cast(PartsReader | None, store)
    finally:
        if store is not None:
            store.close()


def _last_parts(reader: PartsReader) -> Mapping[str, tuple[str, str, str]]:
    from archsearch.errors import StorageError

    try:
        return reader.last_parts()
    except StorageError:
        return {}


def _print(reports: Iterable[PluginReport], found: Iterable[Changed]) -> None:
    out = console()
    reports = list(reports)
    measuring = any(report.evaluators for report in reports)
    rows = [
        [
            printable(report.name, lines=False),
            printable(f"{report.distribution} {report.version}", lines=False),
            ", ".join(report.mixers),
            ", ".join(report.presets),
            ", ".join(report.tasks),
            *([", ".join(report.evaluators)] if measuring else []),
            report.status,
        ]
        for report in reports
    ]
    evaluators = ["evaluators"] if measuring else []
    out.print(table(["plugin", "distribution", "mixers", "presets", "tasks", *evaluators, "status"], rows))
    for report in reports:
        if report.error:
            out.print(printable(f"{report.name} ({report.distribution}): {report.status}: {report.error}"))
    for one in found:
        out.print(printable(str(one), lines=False))
