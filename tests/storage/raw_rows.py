"""Raw rows: written to a database of any schema as plain SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text

from archsearch.storage.engine import WRITES, open_engine


@contextmanager
def writing(url: str) -> Iterator[Connection]:
    engine = open_engine(url)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        yield connection
    engine.dispose()


def insert(connection: Connection, table: str, **values: Any) -> None:
    plain = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in values.items()}
    names, marks = ", ".join(plain), ", ".join(f":{name}" for name in plain)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), plain)
