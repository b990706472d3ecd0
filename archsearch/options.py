"""Options of a mixer: frozen and checked, with the choices that a search may make among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from archsearch.numbers import Numbers


@dataclass(frozen=True)
class Tunable:
    """Search metadata of an option: ``Annotated[int, Tunable(64, 128, 256)]`` may be searched over these choices.

    The choices of an option that holds a layer are layers as notation writes them: ``Tunable("kda", "sliding")``.
    """

    choices: tuple[Any, ...]

    def __init__(self, *choices: Any) -> None:
        object.__setattr__(self, "choices", choices)


class MixerOptions(Numbers):
    """Options of a mixer: frozen, every key known, every default stated, every number finite. Fields may carry
    `Tunable`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def tunables(cls) -> dict[str, tuple[Any, ...]]:
        """The choices that a search may make, by option, in the order of declaration."""
        found = {}
        for name, field in cls.model_fields.items():
            for meta in field.metadata:
                if isinstance(meta, Tunable):
                    found[name] = meta.choices
        return found
