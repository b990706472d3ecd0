"""Sharing: whose a search is, its tags and its note, whether it is archived, and what goes when it is removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, Text, cast, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from archsearch.errors import StorageError
from archsearch.storage.clock import database_now
from archsearch.storage.records import SearchRecord
from archsearch.storage.tables import MeasurementRow, Metric, Part, PluginVersion, Proposal, Search, Trial
from archsearch.storage.writer import Writer

LONGEST_TAG, LONGEST_NOTE = 50, 10_000
_NUMBERS_BYTES = 40
"""About what the numbers and links of one row take."""
_TEXTS: tuple[tuple[InstrumentedAttribute[object], ...], ...] = (
    (Trial.arch, Trial.pattern, Trial.params, Trial.reason, Trial.unexercised, Trial.violations),
    (MeasurementRow.payload, MeasurementRow.key, MeasurementRow.task),
    (Metric.name, Metric.split, Metric.task),
)


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What some searches hold: how many rows, and about how many bytes. ``lent`` counts measurements of other searches
    that were taken from these: those searches have copies of their own."""

    searches: tuple[str, ...]
    trials: int
    measurements: int
    metrics: int
    lent: int
    size_bytes: int


class Sharing(Writer):
    """The half of `Store` for the people who share a database."""

    def edit_search(
        self,
        name: str,
        *,
        tag: Iterable[str] = (),
        untag: Iterable[str] = (),
        note: str | None = None,
        owner: str | None = None,
    ) -> SearchRecord:
        """Gives a search tags, a note or an owner, and takes tags away; an owner of "" is none.

        Raises `StorageError` for a tag that it does not have, and for what is too long or is no one line.
        """
        added, removed = list(tag), list(untag)
        for text in added:
            _check_tag(text)
        _check_line("owner", owner or "x", 200)
        if note is not None and len(note) > LONGEST_NOTE:
            raise StorageError(f"a note has at most {LONGEST_NOTE:,} characters, this one {len(note):,}: shorten it")
        with self._writing() as session:
            found = self._named(session, name)
            missing = [text for text in removed if text not in found.tags]
            if missing:
                raise StorageError(f'the search "{name}" has no tag "{missing[0]}": it has {_listed(found.tags)}')
            values: dict[str, object] = {}
            if added or removed:
                values["tags"] = [text for text in dict.fromkeys([*found.tags, *added]) if text not in removed]
            if note is not None:
                values["note"] = note
            if owner is not None:
                values["owner"] = owner or None
            if values:
                session.execute(update(Search).where(Search.id == found.id).values(**values))
            return self._search(session, found.id)

    def archive_search(self, name: str, *, archived: bool = True) -> SearchRecord:
        """Takes a search out of the lists, or back into them; nothing of it is lost. One that runs stays listed
        (`StorageError`)."""
        with self._writing() as session:
            found = self._named(session, name)
            if archived:
                self._refuse_running([found], "archive")
            moment = (found.archived_at or database_now(session)) if archived else None
            session.execute(update(Search).where(Search.id == found.id).values(archived_at=moment))
            return self._search(session, found.id)

    def holding(self, names: Collection[str]) -> Holding:
        """What these searches hold, and what removing them would free."""
        records = [self.search(name) for name in dict.fromkeys(names)]
        with self._reading() as session:
            return _holding(session, records)

    def remove_searches(self, names: Collection[str]) -> Holding:
        """Removes searches with all that is theirs, in one transaction; returns what they held.

        Measurements that other searches took from them stay there and may be reused as before: they count as taken
        from their own trial. Raises `StorageError` for an unknown name and for a search that runs.
        """
        with self._writing() as session:
            records = [self._named(session, name) for name in dict.fromkeys(names)]
            self._refuse_running(records, "remove")
            ids = [record.id for record in records]
            # who is just taking a result from one of these trials ends first, or finds it gone
            session.execute(select(Trial.id).where(Trial.search_id.in_(ids)).order_by(Trial.id).with_for_update())
            held = _holding(session, records)
            _remove(session, ids)
            return held

    def _named(self, session: Session, name: str) -> SearchRecord:
        """The search of that name, its row locked."""
        found = session.scalar(select(Search.id).where(Search.name == name).with_for_update())
        if found is None:
            self.search(name)  # raises, with the nearest name
            raise StorageError(f'{self.url} has no search "{name}" any more')
        return self._search(session, found)

    def _refuse_running(self, records: Iterable[SearchRecord], what: str) -> None:
        for record in records:
            if record.state_now() == "running":
                raise StorageError(
                    f'the search "{record.name}" is running'
                    + (f" ({record.driver})" if record.driver else "")
                    + f": stop it, or wait until it has ended, then {what} it"
                )


def outdated(
    records: Iterable[SearchRecord], *, now: datetime, older_than: timedelta, states: Collection[str] = ()
) -> list[SearchRecord]:
    """The searches that retention lets go: ended before `now` minus `older_than`, and in one of `states`, or archived
    where no states are given. A running one never is."""
    return [
        record
        for record in records
        if _ended(record) <= now - older_than
        and (state := record.state_now()) != "running"
        and (state in states if states else record.archived_at is not None)
    ]


def _ended(record: SearchRecord) -> datetime:
    return record.finished_at or record.heartbeat_at


def _holding(session: Session, records: Sequence[SearchRecord]) -> Holding:
    ids = [record.id for record in records]
    mine = select(Trial.id).where(Trial.search_id.in_(ids))
    within = (
        (Trial.id, Trial.search_id.in_(ids)),
        (MeasurementRow.id, MeasurementRow.trial_id.in_(mine)),
        (Metric.id, Metric.trial_id.in_(mine)),
    )
    counted = [
        session.execute(_sized(key, texts, where)).one() for (key, where), texts in zip(within, _TEXTS, strict=True)
    ]
    lent = select(func.count()).select_from(MeasurementRow)
    lent = lent.where(MeasurementRow.reused_from.in_(mine), MeasurementRow.trial_id.not_in(mine))
    return Holding(
        searches=tuple(record.name for record in records),
        trials=counted[0][0],
        measurements=counted[1][0],
        metrics=counted[2][0],
        lent=session.scalar(lent) or 0,
        size_bytes=sum(int(count) * _NUMBERS_BYTES + int(characters) for count, characters in counted),
    )


def _sized(
    key: InstrumentedAttribute[int], texts: Iterable[InstrumentedAttribute[object]], where: ColumnElement[bool]
) -> Select[int, int]:
    """How many rows there are, and how many characters are in their texts."""
    characters = [func.coalesce(func.sum(func.length(cast(text, Text))), 0) for text in texts]
    return select(func.count(key), sum(characters[1:], characters[0])).where(where)


def _remove(session: Session, ids: Sequence[int]) -> None:
    mine = select(Trial.id).where(Trial.search_id.in_(ids))
    lent = update(MeasurementRow).where(MeasurementRow.reused_from.in_(mine), MeasurementRow.trial_id.not_in(mine))
    session.execute(lent.values(reused_from=MeasurementRow.trial_id), execution_options={"synchronize_session": False})
    for statement in (
        delete(Proposal).where(Proposal.search_id.in_(ids)),
        delete(Metric).where(Metric.trial_id.in_(mine)),
        delete(MeasurementRow).where(MeasurementRow.trial_id.in_(mine)),
        delete(Trial).where(Trial.search_id.in_(ids)),
        delete(Part).where(Part.search_id.in_(ids)),
        delete(PluginVersion).where(PluginVersion.search_id.in_(ids)),
        delete(Search).where(Search.id.in_(ids)),
    ):
        session.execute(statement, execution_options={"synchronize_session": False})


def _check_tag(text: str) -> None:
    _check_line("tag", text, LONGEST_TAG)
    if not text or set(text) & set(" ,"):
        raise StorageError(f'"{text}" is no tag: write one word without commas')


def _check_line(what: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise StorageError(f"this {what} has {len(text):,} characters, {longest} at most: shorten it")
    if not text.isprintable():
        raise StorageError(f"this {what} holds a character that is not seen: write plain text")


def _listed(tags: Collection[str]) -> str:
    return ", ".join(tags) or "none"
