"""Texts: what the code says of its own fields, and Markdown made of it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

_FIELD = re.compile(r"^``(\w+)``: ", re.MULTILINE)


def texts_of(model: type[BaseModel]) -> dict[str, str]:
    """What is said of each field of a model: its description, else the line "``name``: text" in the docstring of the
    class or of a base. A field of which nothing is said is left out."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel):
            _, *parts = _FIELD.split(_own_docstring(base))
            found |= {
                name: plain(text.partition("\n\n")[0]) for name, text in zip(parts[::2], parts[1::2], strict=True)
            }
    found |= {name: plain(field.description) for name, field in model.model_fields.items() if field.description}
    return {name: found[name] for name in model.model_fields if name in found}


def prose_of(model: type[BaseModel]) -> str:
    """What the docstring of a model says before it comes to the fields."""
    return plain(_FIELD.split(_own_docstring(model))[0])


def _own_docstring(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__dict__.get("__doc__") or "")


def plain(text: str) -> str:
    """A docstring as Markdown: paragraphs in one line each, code between single backticks."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text).replace("``", "`"))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def sentence(text: str) -> str:
    """A clause as a sentence."""
    clause = plain(text).rstrip(".")
    return f"{clause[:1].upper()}{clause[1:]}."


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns in which every cell is empty are left out."""
    lines = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    kept = [index for index in range(len(columns)) if any(line[index] for line in lines)]
    made = [
        [columns[index] for index in kept],
        ["---"] * len(kept),
        *([line[index] for index in kept] for line in lines),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in made)


def code(text: object) -> str:
    """Text between backticks, "" for none."""
    return f"`{text}`" if str(text) else ""


def names_of(names: Iterable[str]) -> str:
    """Names after each other."""
    return ", ".join(map(code, names))


def values_of(values: Iterable[Any]) -> str:
    """Values as a spec file writes them, after each other."""
    return names_of(json.dumps(value, default=str) for value in values)


def settings(values: Mapping[str, Any]) -> str:
    """Options with their values, "nothing" for none."""
    return names_of(f"{name} = {json.dumps(value, default=str)}" for name, value in values.items()) or "nothing"
