"""Fields: the type, the bounds and the default of each field of a pydantic model, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from reference.texts import texts_of

_NAMES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_LIMITS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)
_LEFT_OUT = "left out,"
"""How a text begins to say what a field is that is not given: then its default in the code says nothing."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field, in words; ``text`` is "" where the code says nothing of it."""

    name: str
    type: str
    default: str
    text: str


def fields_of(model: type[BaseModel]) -> list[Field]:
    """Every field, in the order of declaration."""
    schema = model.model_json_schema()
    texts, required = texts_of(model), schema.get("required", ())
    return [
        Field(
            name=name,
            type=words(found, schema.get("$defs", {})),
            default="required" if name in required else _default(found, texts.get(name, "")),
            text=texts.get(name, ""),
        )
        for name, found in schema["properties"].items()
    ]


def words(schema: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(words(kind, models) for kind in schema["anyOf"] if kind.get("type") != "null")
    if "$ref" in schema:
        return words(models[schema["$ref"].rpartition("/")[2]], models)
    kind = schema.get("type", "")
    if kind == "array":
        return _list(schema, models)
    if kind == "object":
        return "table"
    return str(schema.get("description", _NAMES.get(kind, "any value"))) + _limits(schema)


def _list(schema: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {words(schema['prefixItems'][0], models)}"
    least = ", at least one" if schema.get("minItems") else ""
    return f"list of {words(schema.get('items', {}), models)}{least}"


def _limits(schema: Mapping[str, Any]) -> str:
    """Bounds as they follow the name of a kind."""
    if "minimum" in schema and "maximum" in schema:
        return f" from {number(schema['minimum'])} to {number(schema['maximum'])}"
    bounds = [f"{said} {number(schema[key])}" for key, said in _LIMITS if key in schema]
    if "maxLength" in schema:
        bounds.append(f"at most {number(schema['maxLength'])} characters")
    return f", {', '.join(bounds)}" if bounds else ""


def number(value: float) -> str:
    """A number as people read it."""
    if value == int(value) and abs(value) < 10**16:
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    return f"{value:g}"


def _default(schema: Mapping[str, Any], text: str) -> str:
    value = schema.get("default")
    if value in (None, [], {}) or _LEFT_OUT in text:
        return "left out"
    return f"`{json.dumps(value)}`"
