"""Drafts: a spec under way, as the plain data of its file; its fields, read from the spec's schema, and its TOML.

A draft may hold what cannot be right yet. What is wrong with it is one sentence of `fault`.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import tomli_w
from pydantic import BaseModel

from archsearch.errors import ArchsearchError, SpecError
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.backbone import BackboneTable
from archsearch.search.tables.objectives import ObjectivesTable
from archsearch.search.tables.resources import ResourcesTable
from archsearch.search.tables.search import SearchTable
from archsearch.search.tables.space import SpaceTable

Draft = dict[str, Any]
MOST_CHARACTERS = 200_000
"""Characters of a TOML text that is read here."""
TABLES: Mapping[str, type[BaseModel]] = {
    "model": BackboneTable,
    "space": SpaceTable,
    "recipe": Recipe,
    "objectives": ObjectivesTable,
    "search": SearchTable,
    "resources": ResourcesTable,
}
"""The tables of a spec that the form shows by their schema, by name."""
SMALL: Mapping[str, Any] = {
    "name": "my-search",
    "model": {"n_layers": 4, "d_model": 64, "n_heads": 2, "channel_mixer": "none"},
    "space": {"mixers": ["full", "sliding", "linear"], "sliding": {"window": [8]}, "linear": {"key_dim": [4]}},
    "tasks": [{"name": "mqar", "setting": "compact"}],
    "recipe": {"steps": 300},
    "objectives": {"maximize": ["recall"], "minimize": ["state_bytes", "decode_flops"]},
    "search": {"trials": 16, "concurrency": 2},
}
"""A search of minutes, to begin with."""

_SHORT = re.compile(r"= \[\n((?:    [^ \n].*,\n){1,8})\]$", re.MULTILINE)
"""A list of plain values over several lines, of which a few fit into one."""
_FIELD = re.compile(r"^``(\w+)``: ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of a table: how it is asked for, what it is when it is left out, and what it does.

    ``kind`` is "choice" (of ``choices``), "switch", "list" (values between commas) or "value"; ``default`` is text.
    """

    name: str
    kind: Literal["choice", "switch", "list", "value"]
    default: Any
    help: str
    choices: tuple[str, ...] = ()

    @property
    def placeholder(self) -> str:
        """What an empty place says: the default, or that the key is left out."""
        return "left out" if self.default is None else as_text(self.default) or "none"


def fields(model: type[BaseModel], leave_out: Sequence[str] = ()) -> list[Field]:
    """The fields of a table in the order of their declaration."""
    said = _help(model)
    found = []
    for name, info in model.model_fields.items():
        if name in leave_out:
            continue
        kinds = _kinds(info.annotation)
        choices = tuple(text for kind in kinds if get_origin(kind) is Literal for text in get_args(kind))
        default = None if info.is_required() else info.get_default()
        if choices:
            found.append(Field(name=name, kind="choice", default=default, help=said.get(name, ""), choices=choices))
            continue
        listed = any(get_origin(kind) is tuple for kind in kinds)
        kind: Literal["switch", "list", "value"] = "switch" if bool in kinds else "list" if listed else "value"
        found.append(Field(name=name, kind=kind, default=default, help=said.get(name, "")))
    return found


def _kinds(annotation: Any) -> list[Any]:
    """The parts of a type, unions and `Annotated` taken apart."""
    if hasattr(annotation, "__metadata__"):
        return _kinds(annotation.__origin__)
    if get_origin(annotation) in (tuple, Literal) or not get_args(annotation):
        return [] if annotation is NoneType else [annotation]
    return [kind for part in get_args(annotation) for kind in _kinds(part)]


def _help(model: type[BaseModel]) -> dict[str, str]:
    """What docstrings say of each key: the lines "``key``: text" of the table and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        _, *parts = _FIELD.split(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
        said = (" ".join(text.partition("\n\n")[0].split()).replace("``", "`") for text in parts[1::2])
        found |= dict(zip(parts[::2], said, strict=True))
    return found


def as_text(value: Any) -> str:
    """A value as a field shows it; lists without their brackets."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def read_value(text: str, field: Field) -> Any:
    """What a person wrote into a field: TOML, and plain text where it is none; None for nothing."""
    text = text.strip()
    if not text:
        return None
    if field.kind == "list":
        return [_scalar(part.strip()) for part in text.strip("[]").split(",") if part.strip()]
    return _scalar(text)


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def read_budget(text: str) -> dict[str, Any]:
    """The budget from lines "COST = LIMIT"; raises `SpecError` for another line."""
    found: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        term, equals, limit = line.rpartition("=")
        if not equals or not term.strip() or not limit.strip():
            raise SpecError(f'budget: "{line}" is no limit: write COST = LIMIT, as state_bytes@131072 = 18 MiB')
        found[term.strip().strip('"')] = _scalar(limit.strip())
    return found


def budget_text(draft: Mapping[str, Any]) -> str:
    """The budget of a draft in lines."""
    given = draft.get("budget")
    return "\n".join(f"{term} = {limit}" for term, limit in given.items()) if isinstance(given, Mapping) else ""


def from_stored(spec: Mapping[str, Any]) -> Draft:
    """A draft from a stored spec, with another name; raises `SpecError` where this version cannot read it."""
    draft = _sparse(SearchSpec.from_dict(spec).to_json())
    draft["name"] = f"{draft['name'][:90]}-again"
    return draft


def from_text(text: str) -> Draft:
    """A draft from TOML; raises `SpecError` for text that is none."""
    if len(text) > MOST_CHARACTERS:
        raise SpecError(f"{len(text):,} characters are no spec: at most {MOST_CHARACTERS:,}")
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"this is no TOML: {error}") from None


def _sparse(spec: Mapping[str, Any]) -> Draft:
    """A spec without the keys that are at their defaults."""
    kept: Draft = {}
    for key, value in spec.items():
        if key in TABLES and isinstance(value, Mapping):
            left = {name: given for name, given in value.items() if not _is_default(TABLES[key], name, given)}
            if left:
                kept[key] = left
        elif key == "tasks":
            kept[key] = [{name: given for name, given in task.items() if given not in (None, {})} for task in value]
        elif value not in (None, {}, 0):
            kept[key] = value
    return kept


def _is_default(model: type[BaseModel], name: str, given: Any) -> bool:
    info = model.model_fields.get(name)
    if given is None:
        return True
    if info is None or info.is_required():
        return False
    default = info.get_default()
    return bool(given == (list(default) if isinstance(default, tuple) else default))


def with_table(draft: Mapping[str, Any], table: str, values: Mapping[str, Any]) -> Draft:
    """`draft` with some keys of a table set, or left out where they are None; the other keys stay."""
    made = deepcopy(dict(draft))
    kept = made.get(table)
    merged = {**(kept if isinstance(kept, dict) else {}), **values}
    made[table] = {key: value for key, value in merged.items() if value is not None}
    if not made[table]:
        del made[table]
    return made


def fault(draft: Mapping[str, Any]) -> str:
    """What keeps a draft from being a spec, in a sentence; empty where nothing does.

    What only plugins and tasks know is not looked at here: `archsearch survey` does.
    """
    try:
        SearchSpec.from_dict(draft)
    except ArchsearchError as error:
        return str(error)
    if "storage" in draft:
        return "[storage]: where a job writes is settled on the cluster: drop the table"
    return ""


def place_of(fault_text: str) -> str:
    """The table whose key a sentence of `fault` is about, "" where it is of none that the form shows."""
    named = re.search(r'^(?:unknown key )?["\[]*(\w+)', fault_text)
    return named[1] if named and named[1] in (*TABLES, "tasks", "budget", "name", "seed") else ""


def to_toml(draft: Mapping[str, Any]) -> str:
    """The draft as the file that is sent; raises `SpecError` for what TOML cannot hold."""
    order = ["name", "seed", "model", "space", "tasks", "recipe", "objectives", "budget", "search", "resources"]
    known = {key: draft[key] for key in order if key in draft}
    try:
        text = tomli_w.dumps({**known, **draft})
    except (TypeError, ValueError) as error:
        raise SpecError(f"this cannot be written as TOML: {error}") from None
    return _SHORT.sub(lambda found: f"= [{', '.join(line.strip()[:-1] for line in found[1].splitlines())}]", text)


def digest(*parts: str) -> str:
    """A key that is equal for equal parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def tunables(registry: Registry, name: str) -> dict[str, list[Any]]:
    """The options of a mixer or preset that a search chooses among, with their choices; those that it fixes apart."""
    resolved = registry.resolve(name)
    found = resolved.plugin.options.tunables()
    return {option: list(choices) for option, choices in found.items() if option not in resolved.preset}


def mixer_names(registry: Registry) -> list[str]:
    """Every mixer, each followed by its presets."""
    named = (name for plugin in registry.mixers() for name in (plugin.name, *registry.presets_of(plugin.name)))
    return list(dict.fromkeys(named))
