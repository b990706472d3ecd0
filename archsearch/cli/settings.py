"""Settings: ``--set TABLE.KEY=VALUE`` options, for what has no option of its own."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from archsearch.errors import SpecError

TABLES = ("recipe", "model")


def read_settings(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Values by table and key; a value is read as TOML, and as plain text where it is none.

    Raises `SpecError` for a text of another form and for a table that there is not.
    """
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
    for text in texts:
        name, equals, value = text.partition("=")
        table, dot, key = name.strip().partition(".")
        if not (equals and dot and key) or table not in tables:
            raise SpecError(f"--set {text}: write recipe.KEY=VALUE or model.KEY=VALUE")
        tables[table][key] = _value(value.strip(), f"--set {table}.{key}")
    return tables


def _value(text: str, where: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError:
        raise SpecError(f"{where}: the value nests too deeply: write a number, a text or a list of them") from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise SpecError(f"{where}: the value cannot be read: {error}") from None
