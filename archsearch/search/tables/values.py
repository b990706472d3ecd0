"""Values to choose from, as the tables of a space list them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsearch.errors import SpecError
from archsearch.search.tables.table import MAX_CHOICES


def refuse_twice(key: str, given: tuple[Any, ...]) -> None:
    """Raises `SpecError` where a list of `[space]` names something twice."""
    twice = [value for value in given if given.count(value) > 1]
    if twice:
        raise SpecError(f"space.{key} names {twice[0]!r} twice: drop one")


def texts(given: Any) -> list[str]:
    """The texts of a list, of which something that is none is told by its own key."""
    return [value for value in given if isinstance(value, str)] if isinstance(given, list | tuple) else []


def choices(key: str, given: Any) -> tuple[Any, ...]:
    """The values of a key to choose from, one or a list; raises `SpecError` for none, too many, and tables."""
    values = given if isinstance(given, list | tuple) else (given,)
    if not values:
        raise SpecError(f"{key} = []: give at least one value, or leave the key out")
    if len(values) > MAX_CHOICES:
        raise SpecError(f"{key} has {len(values)} values: at most {MAX_CHOICES}")
    return tuple(_choice(key, value) for value in values)


def _choice(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        raise SpecError(f"{key} has a table among its values: write numbers, text, true or false, or lists of them")
    return tuple(_choice(key, part) for part in value) if isinstance(value, list | tuple) else value
