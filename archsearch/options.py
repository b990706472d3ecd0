"""Options of a mixer: frozen and checked, with the choices that a search may make among them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from archsearch.numbers import Numbers


@dataclass(frozen=True)
class Tunable:
    """Search metadata of an option: ``Annotated[int, Tunable(64, 128, 256)]`` may be searched over these choices.

    The choices of an option that holds a layer are layers as notation writes them: ``Tunable("kda", "sliding")``.
    """

    choices: tuple[Any, ...]

    def __init__(self, *choices: Any) -> None:
        object.__setattr__(self, "choices", choices)


UNREAD = "unread"
"""Pydantic's type of the error of an option that says nothing beside the others; its context has their ``names``."""
_MEANING = re.compile(r"^(``\w+``(?:, ``\w+``)*): (.+(?:\n(?!``).+)*)", re.MULTILINE)
"""What a docstring says of an option, or of several: "``window``: last tokens that are seen.", until the next one or a
blank line."""


class MixerOptions(Numbers):
    """Options of a mixer: frozen, every key known, every default stated, every number finite, and none that is set and
    not read. Fields may carry `Tunable`.

    What an option means stands in the docstring of its class, "``window``: last tokens that are seen.", or in its
    ``Field(description=...)``: the dashboard and ``archsearch mixers`` show it.

    ``later``: options that came after layers had been measured. At its default such a one is left out of what is
    written, so that those layers keep their digests, and what was measured of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = type(self).model_fields
        for name in self.later:
            if getattr(self, name) == fields[name].get_default(call_default_factory=True):
                written.pop(name, None)
        return written

    def unread(self) -> Mapping[str, str]:
        """Options that say nothing beside the values of the others, by name, each with those values and the remedy.

        Such as ``{"index_heads": "top_k=0: use top_k above 0"}`` of options without an index. They are of plain values.
        Any but the default is refused, so that equal layers have equal options; a search leaves them at that.
        """
        return {}

    @model_validator(mode="after")
    def _refuse_unread(self) -> Self:
        fields, refused = type(self).model_fields, dict[str, str]()
        for name, why in self.unread().items():
            value, default = getattr(self, name), fields[name].get_default(call_default_factory=True)
            if value != default:
                refused[name] = f"{name}={json.dumps(value)} says nothing of {why}, or {name}={json.dumps(default)}"
        if refused:
            said = next(iter(refused.values()))
            raise PydanticCustomError(UNREAD, "{said}", {"said": said, "names": tuple(refused)})
        return self

    @classmethod
    def tunables(cls) -> dict[str, tuple[Any, ...]]:
        """The choices that a search may make, by option, in the order of declaration."""
        found = {}
        for name, field in cls.model_fields.items():
            for meta in field.metadata:
                if isinstance(meta, Tunable):
                    found[name] = meta.choices
        return found

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """What each option means, in one line, in the order of declaration; "" where nothing is said of it."""
        said = {
            name: " ".join(text.replace("``", "").split()).removesuffix(".")
            for base in reversed(cls.__mro__)
            if issubclass(base, MixerOptions) and base.__doc__
            for names, text in _MEANING.findall(inspect.cleandoc(base.__doc__))
            for name in re.findall(r"\w+", names)
        }
        return {name: field.description or said.get(name, "") for name, field in cls.model_fields.items()}


def unread_of(error: ValidationError) -> tuple[str, ...]:
    """The options that pydantic's error refuses because they say nothing beside the others."""
    first = error.errors()[0]
    names: tuple[str, ...] = first["ctx"]["names"] if first["type"] == UNREAD else ()
    return names
