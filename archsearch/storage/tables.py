"""Tables: what a database holds of searches, trials, measurements and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from archsearch.storage.kinds import Unreadable

VERSION_TABLE = "archsearch_version"
MOST_ROWS = 2**31 - 1
"""The greatest id of a row; servers refuse to look for a greater one."""

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone: UTC in the database (SQLite keeps none) and UTC-aware in Python."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses a moment without a time zone (`ValueError`): nobody could tell what it meant."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """What is no moment becomes `Unreadable`: one such value must not end the reading of the others."""
        read = self.impl_instance.dialect_impl(dialect).result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            try:
                return _utc(value if read is None else read(value))
            except (TypeError, ValueError, OverflowError, AttributeError):
                return Unreadable(value)

        return process


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text of any length from anywhere, such as what a worker said: what PostgreSQL cannot hold becomes U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _NO_TEXT.sub("\ufffd", value)


class Base(DeclarativeBase):
    """Base of the tables; constraints are named, so that a migration can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        float: Double,
    }


class Search(Base):
    """One search: its spec as given, its objectives, and who drives it.

    `beats` counts the driver's signs of life, `fence` the drivers that it had: a driver whose number is not the last
    one may write no more. `owner`, `tags`, `note` and `archived_at` are for the people who share the database.
    """

    __tablename__ = "search"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(PlainText, default="")
    spec: Mapped[dict[str, Any]]
    objectives: Mapped[list[Any]]
    created_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    driver: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    beats: Mapped[int] = mapped_column(default=0, server_default="0")
    fence: Mapped[int] = mapped_column(default=0, server_default="0")
    owner: Mapped[str | None] = mapped_column(String(200))
    tags: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    note: Mapped[str] = mapped_column(PlainText, default="", server_default="")
    archived_at: Mapped[datetime | None]


class Trial(Base):
    """One candidate that was drawn: trained on all tasks with its seeds, or turned away.

    `attempts` counts the workers that were lost under it, `placement` says where it ran last.
    """

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("search_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("search.id"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(PlainText, default="")
    arch: Mapped[dict[str, Any]]
    digest: Mapped[str] = mapped_column(String(128), index=True)
    pattern: Mapped[str] = mapped_column(PlainText)
    params: Mapped[dict[str, Any]]
    seeds: Mapped[list[Any]]
    violations: Mapped[dict[str, Any]]
    unexercised: Mapped[list[Any]]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("trial.id"), index=True)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    placement: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class MeasurementRow(Base):
    """What one task and seed gave; a trial has one for each, and `reused_from` says where it was trained."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("trial_id", "task", "seed"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"))
    key: Mapped[str] = mapped_column(String(128), index=True)
    task: Mapped[str] = mapped_column(String(200))
    seed: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(20))
    payload: Mapped[dict[str, Any]]
    reused_from: Mapped[int | None] = mapped_column(ForeignKey("trial.id"), index=True)
    created_at: Mapped[datetime]


class Metric(Base):
    """One number of a trial; `value` is NULL where it was not finite."""

    __tablename__ = "metric"
    __table_args__ = (Index(None, "trial_id", "split"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id"))
    name: Mapped[str] = mapped_column(String(200))
    split: Mapped[str] = mapped_column(String(20))
    task: Mapped[str | None] = mapped_column(String(200))
    seed: Mapped[int | None] = mapped_column(BigInteger)
    step: Mapped[int | None] = mapped_column(BigInteger)
    value: Mapped[float | None]


class PluginVersion(Base):
    """A plugin that a search ran with."""

    __tablename__ = "plugin_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("search.id"), index=True)
    plugin: Mapped[str] = mapped_column(String(200))
    distribution: Mapped[str | None] = mapped_column(String(200))
    version: Mapped[str | None] = mapped_column(String(100))


class Part(Base):
    """A part of the source that a search ran: the core, a mixer ("mixer:linear") or a task ("task:mqar")."""

    __tablename__ = "part"
    __table_args__ = (UniqueConstraint("search_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("search.id"))
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64))


class Proposal(Base):
    """A candidate that somebody added to a search; `trial_id` is the trial that came of it."""

    __tablename__ = "proposal"
    __table_args__ = (UniqueConstraint("search_id", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    search_id: Mapped[int] = mapped_column(ForeignKey("search.id"))
    digest: Mapped[str] = mapped_column(String(128))
    arch: Mapped[dict[str, Any]]
    pattern: Mapped[str] = mapped_column(PlainText)
    owner: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime]
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("trial.id"), index=True)


class JobRow(Base):
    """A search that was submitted to a cluster: here before it is there. `key` is the same for the same submission."""

    __tablename__ = "job"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    key: Mapped[str] = mapped_column(String(128), unique=True)
    search: Mapped[str] = mapped_column(String(200), index=True)
    address: Mapped[str] = mapped_column(String(500))
    owner: Mapped[str | None] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(PlainText, default="")
    spec: Mapped[dict[str, Any]]
    plugins: Mapped[list[Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
