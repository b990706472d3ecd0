"""Rows on their way from one database to another, table by table, as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, TableClause, func, insert, inspect, select, text
from sqlalchemy import column as column_clause
from sqlalchemy import table as table_clause

from archsearch.errors import StorageError
from archsearch.storage.kinds import Unreadable, brief
from archsearch.storage.tables import Base

CHUNK = 1000
"""Rows that are read and written at once."""

Row = dict[str, Any]


def rows_of(
    source: Connection, table: Table, where: ColumnElement[bool] | None = None, *, order: Column[Any] | None = None
) -> Iterator[list[Row]]:
    """The rows of a table, by id or `order`, chunk by chunk; columns that an older schema lacks are left out.

    Raises `StorageError`, which names row and column, for a value that no database could take.
    """
    columns = [table.c[name] for name in _columns(source, table)]
    query = select(*columns).order_by(table.c.id if order is None else order)
    if where is not None:
        query = query.where(where)
    for part in source.execution_options(yield_per=CHUNK).execute(query).partitions(CHUNK):
        rows = [dict(row._mapping) for row in part]
        for row in rows:
            _check(table, row)
        yield rows


def copy_all(source: Connection, target: Connection) -> Mapping[str, int]:
    """Every row of every table with its id, in one transaction of each; how many there were of each table."""
    if target.dialect.name == "sqlite":
        target.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    present = set(inspect(source).get_table_names())
    counts = {}
    for table in Base.metadata.sorted_tables:
        counts[table.name] = 0
        if table.name not in present:
            continue
        made = insert(_as_it_is(table, _columns(source, table)))
        for rows in rows_of(source, table):
            target.execute(made, rows)
            counts[table.name] += len(rows)
    _count_on(target)
    return counts


def insert_numbered(target: Connection, table: Table, rows: Sequence[Row]) -> list[int]:
    """Inserts rows without their ids; returns those that they got, in their order."""
    made = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return list(target.scalars(made, [{name: value for name, value in row.items() if name != "id"} for row in rows]))


def with_values(rows: Sequence[Row], **change: Callable[[Row], Any]) -> list[Row]:
    """Copies of rows in which the columns of `change` have the values that it makes of each row."""
    return [{**row, **{name: make(row) for name, make in change.items()}} for row in rows]


def _as_it_is(table: Table, names: Sequence[str]) -> TableClause:
    """The table with these columns alone, and without values for others: its schema may be an older one."""
    return table_clause(table.name, *(column_clause(name, table.c[name].type) for name in names))


def _columns(source: Connection, table: Table) -> list[str]:
    present = {column["name"] for column in inspect(source).get_columns(table.name)}
    return [column.name for column in table.columns if column.name in present]


def _check(table: Table, row: Row) -> None:
    for name, value in row.items():
        if isinstance(value, Unreadable):
            raise StorageError(
                f"{table.name} {row['id']} cannot be copied: its {name} is {brief(value)}: put this right in the "
                "database, or delete the row"
            )


def _count_on(target: Connection) -> None:
    """A server counts ids by itself: after rows that brought theirs it must go on from the greatest."""
    if target.dialect.name != "postgresql":
        return
    for table in Base.metadata.sorted_tables:
        last = target.scalar(select(func.max(table.c.id)))
        if last is not None:
            target.execute(text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"), _named(table, last))


def _named(table: Table, last: int) -> Row:
    return {"name": f'"{table.name}"', "last": last}
