"""Imports: searches of another database, such as a laptop's, brought into this one with all that is theirs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, Engine, Table, bindparam, func, insert, select, update

from archsearch.errors import StorageError, listing, nearest
from archsearch.storage.backup import readable
from archsearch.storage.copying import Row, insert_numbered, rows_of, with_values
from archsearch.storage.engine import WRITES, open_engine
from archsearch.storage.failures import storage_errors
from archsearch.storage.reader import Reader
from archsearch.storage.records import OPEN_STATES, SearchRecord
from archsearch.storage.spec_keys import lasting
from archsearch.storage.tables import Base, Search
from archsearch.storage.url import hide

Ids = dict[int, int]
"""The ids of trials here, by those that they had."""

_TABLES: Mapping[str, Table] = Base.metadata.tables
_TRIALS_NAMED = re.compile(r"(?<=\btrial )\d+(?:, \d+)*")
_LOST = "its driver was gone when it was brought here: `archsearch resume` goes on with it"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of a search of the other database: ``name`` is the one that it has here."""

    search: str
    name: str
    outcome: Literal["imported", "already here", "refused"]
    trials: int = 0
    reason: str = ""


def import_searches(
    url: str,
    source_url: str,
    *,
    names: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
    owner: str | None = None,
) -> list[Imported]:
    """Brings the searches of the database at `source_url` into the one at `url`, each in one transaction.

    All of them, or those of `names`; ``renamed`` maps a name there to the one that it gets here. A search that is here
    already, under whatever name, is not brought again. ``owner`` is for those that have none. A search that runs, and
    one whose name is taken here, is refused and the others are brought. Raises `StorageError` for names that are not
    there and for databases that cannot be used.
    """
    renamed = dict(renamed or {})
    with readable(source_url) as source, Reader.open(url, create=False):
        chosen = _chosen(Reader(source, source_url), {*names, *renamed}, all_of_them=not names)
        engine = open_engine(url, create=False)
        try:
            one = _Import(source, engine, url, owner)
            return [one.bring(record, renamed.get(record.name, record.name)) for record in chosen]
        finally:
            engine.dispose()


def _chosen(there: Reader, named: Collection[str], *, all_of_them: bool) -> list[SearchRecord]:
    found = there.searches()
    known = [record.name for record in found]
    for name in sorted(named):
        if name not in known:
            raise StorageError(
                f'{there.url} has no search "{name}"{nearest(name, known) or f": it has {listing(known)}"}'
            )
    return [record for record in found if all_of_them or record.name in named]


class _Import:
    """Brings searches from one database to another."""

    def __init__(self, source: Engine, target: Engine, url: str, owner: str | None) -> None:
        self._source, self._target, self._url, self._owner = source, target, url, owner

    def bring(self, record: SearchRecord, name: str) -> Imported:
        """One search; what refuses it is told, and the next one's turn comes."""
        if record.state_now() == "running":
            told = "it is running: stop it, or wait until it has ended, and import again"
            return Imported(search=record.name, name=name, outcome="refused", reason=told)
        try:
            return self._bring(record, name)
        except StorageError as error:
            return Imported(search=record.name, name=name, outcome="refused", reason=str(error))

    def _bring(self, record: SearchRecord, name: str) -> Imported:
        with (
            storage_errors(self._url),
            self._source.connect() as reading,
            self._target.execution_options(**{WRITES: True}).begin() as writing,
        ):
            (row,) = next(rows_of(reading, _TABLES["search"], _TABLES["search"].c.id == record.id))
            twin = _twin(writing, row)
            if twin is not None:
                return self._known(reading, writing, record, twin)
            if writing.scalar(select(Search.id).where(Search.name == name)) is not None:
                told = f"{hide(self._url)} has another search of that name: add --rename {record.name}=NEW_NAME"
                return Imported(search=record.name, name=name, outcome="refused", reason=told)
            trials = self._copy(reading, writing, row, name)
        return Imported(search=record.name, name=name, outcome="imported", trials=trials)

    def _known(self, reading: Connection, writing: Connection, record: SearchRecord, twin: Row) -> Imported:
        """A search that is here already; where the two have gone on apart, that is told."""
        there, here = (_trials_of(one, number) for one, number in ((reading, record.id), (writing, twin["id"])))
        told = ""
        if there != here:
            told = (
                f"it has {there} trials there and {here} here: `archsearch rm {twin['name']}` first brings it as it is "
                "there"
            )
        return Imported(search=record.name, name=twin["name"], outcome="already here", trials=here, reason=told)

    def _copy(self, reading: Connection, writing: Connection, row: Row, name: str) -> int:
        """All that is a search's; the number of its trials."""
        (search,) = insert_numbered(writing, _TABLES["search"], [self._search(row, name)])
        ids = _copy_trials(reading, writing, row["id"], search)
        _copy_results(reading, writing, row["id"], ids, _elsewhere(reading, writing, row["id"]))
        for table in ("part", "plugin_version", "proposal"):
            columns = _TABLES[table].c
            for rows in rows_of(reading, _TABLES[table], columns.search_id == row["id"]):
                moved = with_values(rows, search_id=lambda _: search)
                if table == "proposal":
                    moved = with_values(moved, trial_id=lambda found: ids.get(found["trial_id"]))
                insert_numbered(writing, _TABLES[table], moved)
        return len(ids)

    def _search(self, row: Row, name: str) -> Row:
        spec = {**row["spec"], "name": name} if "name" in row["spec"] else row["spec"]
        made = {**row, "name": name, "spec": spec, "owner": row["owner"] or self._owner, "driver": None}
        again = "archsearch resume {}"
        made["reason"] = row["reason"].replace(again.format(shlex.quote(row["name"])), again.format(shlex.quote(name)))
        if row["state"] == "running":
            made |= {"state": "interrupted", "reason": _LOST, "finished_at": row["heartbeat_at"]}
        return made


def _twin(writing: Connection, row: Row) -> Row | None:
    """The same search, already here: of the same moment and the same spec, whatever its name and what it has grown."""
    search = _TABLES["search"]
    found = writing.execute(select(search).where(search.c.created_at == row["created_at"])).mappings().all()
    return next((dict(other) for other in found if lasting(other["spec"]) == lasting(row["spec"])), None)


def _trials_of(connection: Connection, search: int) -> int:
    trial = _TABLES["trial"].c
    return connection.scalar(select(func.count(trial.id)).where(trial.search_id == search)) or 0


def _copy_trials(reading: Connection, writing: Connection, before: int, search: int) -> Ids:
    """The trials of a search in their order; what was open is preempted, so that a resumed search goes on with it."""
    table = _TABLES["trial"]
    ids: Ids = {}
    parents: list[Row] = []
    for rows in rows_of(reading, table, table.c.search_id == before, order=table.c.number):
        parents += [row for row in rows if row["parent_id"] is not None]
        moved = [_closed({**row, "search_id": search, "parent_id": None}) for row in rows]
        ids.update(zip((row["id"] for row in rows), insert_numbered(writing, table, moved), strict=True))
    changes = [{"of": ids[row["id"]], "parent": ids[row["parent_id"]]} for row in parents if row["parent_id"] in ids]
    if changes:
        writing.execute(
            update(table).where(table.c.id == bindparam("of")).values(parent_id=bindparam("parent")), changes
        )
    reasons = [
        {"of": ids[trial], "told": _TRIALS_NAMED.sub(lambda found: _renumbered(found[0], ids), told)}
        for trial, told in _reasons(reading, before)
    ]
    if reasons:
        writing.execute(update(table).where(table.c.id == bindparam("of")).values(reason=bindparam("told")), reasons)
    return ids


def _closed(row: Row) -> Row:
    if row["state"] not in OPEN_STATES:
        return row
    return {**row, "state": "preempted", "reason": _LOST, "finished_at": datetime.now(UTC)}


def _reasons(reading: Connection, search: int) -> list[tuple[int, str]]:
    """The reasons that name other trials by their ids."""
    trial = _TABLES["trial"].c
    query = select(trial.id, trial.reason).where(trial.search_id == search, trial.reason.like("%trial %"))
    return [(found.id, found.reason) for found in reading.execute(query.where(trial.state.not_in(OPEN_STATES)))]


def _renumbered(numbers: str, ids: Ids) -> str:
    return ", ".join(str(ids.get(int(number), number)) for number in numbers.split(", "))


def _elsewhere(reading: Connection, writing: Connection, search: int) -> Ids:
    """The trials of other searches there that are here too, by what they were there: measurements refer to them."""
    search_t, trial, measured = (_TABLES[name].c for name in ("search", "trial", "measurement"))
    mine = select(trial.id).where(trial.search_id == search)
    lent = select(measured.reused_from).where(measured.trial_id.in_(mine), measured.reused_from.is_not(None))
    query = select(trial.id, trial.number, trial.search_id).where(trial.id.in_(lent), trial.search_id != search)
    found: Ids = {}
    twins: dict[int, Row | None] = {}
    for row in reading.execute(query).all():
        if row.search_id not in twins:
            (origin,) = next(rows_of(reading, _TABLES["search"], search_t.id == row.search_id))
            twins[row.search_id] = _twin(writing, origin)
        twin = twins[row.search_id]
        if twin is not None:
            same = select(trial.id).where(trial.search_id == twin["id"], trial.number == row.number)
            here = writing.scalar(same)
            if here is not None:
                found[row.id] = here
    return found


def _copy_results(reading: Connection, writing: Connection, search: int, ids: Ids, elsewhere: Ids) -> None:
    """Measurements and metrics; one that was taken from a trial that is not here counts as taken from its own."""
    trial = _TABLES["trial"].c
    mine = select(trial.id).where(trial.search_id == search)
    known = {**elsewhere, **ids}

    def origin(row: Row) -> int | None:
        return None if row["reused_from"] is None else known.get(row["reused_from"], ids[row["trial_id"]])

    table = _TABLES["measurement"]
    for rows in rows_of(reading, table, table.c.trial_id.in_(mine)):
        moved = with_values(rows, reused_from=origin)
        _insert(writing, table, with_values(moved, trial_id=lambda row: ids[row["trial_id"]]))
    table = _TABLES["metric"]
    for rows in rows_of(reading, table, table.c.trial_id.in_(mine)):
        _insert(writing, table, with_values(rows, trial_id=lambda row: ids[row["trial_id"]]))


def _insert(writing: Connection, table: Table, rows: list[Row]) -> None:
    writing.execute(insert(table), [{name: value for name, value in row.items() if name != "id"} for row in rows])
