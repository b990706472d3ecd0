"""Numbers: tables of settings in which a number is a number; pydantic alone would read ``true`` as 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Strict, model_validator

Whole = Annotated[int, Strict()]
"""A whole number as it is written: neither true nor "3" nor 3.0."""

Number = Annotated[float, Strict()]
"""A number as it is written: neither true nor "3"."""


class Numbers(BaseModel):
    """A table in which ``true`` and ``false`` are refused, also within a list, where a field has no truth values."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_truth(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key, value in values.items():
                field = cls.model_fields.get(key)
                if field is not None and _has_truth(value) and not _takes_truth(field.annotation):
                    raise ValueError(f"{key} = {_shown(value)}: is a truth value: write what the key asks for")
        return values


def _has_truth(value: Any) -> bool:
    return any(map(_has_truth, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _takes_truth(annotation: Any) -> bool:
    """Whether a field's type names ``bool`` or a truth value, or says nothing."""
    if annotation in (Any, object, bool) or isinstance(annotation, bool):
        return True
    return any(map(_takes_truth, get_args(annotation)))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
