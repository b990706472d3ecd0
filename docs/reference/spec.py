"""The keys of a spec file, table by table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from archsearch.costs import MEASURES
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.space import SpaceTable
from reference.fields import Field, fields_of
from reference.texts import code, prose_of, table

_IN_A_TABLE_EACH: dict[type[BaseModel], dict[str, str]] = {SpaceTable: {"options": "[space.MIXER]"}}
"""Fields that the file does not write as a key of that name."""


def spec_tables() -> dict[str, list[Field]]:
    """The keys by table, "" for those above all tables, as the file writes them."""
    found = {"": [_bracketed(field) for field in fields_of(SearchSpec) if _model_of(field.name) is None]}
    for name in SearchSpec.model_fields:
        model = _model_of(name)
        if model is not None:
            found[_heading(name)] = list(_as_written(model))
            found |= {_inner(name, inner, model): fields_of(within) for inner, within in _tables_in(model)}
    return found


def spec_reference() -> str:
    """Every key of the file with its type, its bounds, its default and what it says."""
    parts = [_section("The top of the file", "", spec_tables()[""])]
    for name in SearchSpec.model_fields:
        model = _model_of(name)
        if model is not None:
            inner = [(_inner(name, key, model), within) for key, within in _tables_in(model)]
            for heading, shown in [(_heading(name), model), *inner]:
                parts.append(_section(code(heading), prose_of(shown), spec_tables()[heading]))
    return "\n\n".join(parts)


def cost_names() -> str:
    """The costs that budgets and objectives may name."""
    return table(["cost", "counted in"], ([code(name), unit or "a number"] for name, unit in MEASURES.items()))


def _section(heading: str, prose: str, fields: list[Field]) -> str:
    rows = ([code(field.name), field.type, field.default, field.text] for field in fields)
    return f"### {heading}\n\n{prose}\n\n{table(['key', 'value', 'default', 'meaning'], rows)}"


def _heading(name: str) -> str:
    return _brackets(name, SearchSpec, name)


def _inner(name: str, key: str, model: type[BaseModel]) -> str:
    """The heading of a table within a table."""
    return _brackets(f"{name}.{key}", model, key)


def _brackets(words: str, model: type[BaseModel], key: str) -> str:
    return f"[[{words}]]" if get_origin(model.model_fields[key].annotation) is tuple else f"[{words}]"


def _tables_in(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The keys of a table that are tables."""
    for name in model.model_fields:
        within = _model_of(name, model)
        if within is not None:
            yield name, within


def _model_of(name: str, table: type[BaseModel] = SearchSpec) -> type[BaseModel] | None:
    """The model of a key that is a table, or a list of tables."""
    annotation: Any = table.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _bracketed(field: Field) -> Field:
    return replace(field, name=f"[{field.name}]") if field.type == "table" else field


def _as_written(model: type[BaseModel]) -> Iterator[Field]:
    written = _IN_A_TABLE_EACH.get(model, {})
    for field in fields_of(model):
        if field.name in written:
            yield replace(field, name=written[field.name])
        elif _model_of(field.name, model) is None:
            yield field
