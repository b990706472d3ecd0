"""Foreign data: JSON of any shape, made to fit the shape that pages read, and what of it did not fit."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_ROUNDS = 8
"""How often what does not fit is taken away; each round, what holds it may turn out not to fit without it."""

MOST_DIGITS = 2**53
"""The greatest whole number that a table in a browser holds exactly."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=-MOST_DIGITS, le=MOST_DIGITS)]
Label = Annotated[str, Field(max_length=1_000)]
Scalar = Label | bool | Count | Number | None


class Shape(BaseModel):
    """A shape that foreign data should have: types are strict, and keys that no page reads are let through."""

    model_config = ConfigDict(strict=True, extra="allow")


ShapeT = TypeVar("ShapeT", bound=Shape)
_Path = tuple[int | str, ...]
_Place = tuple[Any, int | str]


def fitted(shape: type[ShapeT], data: object) -> tuple[ShapeT | None, list[str]]:
    """`data` as `shape` without the parts that do not fit, and the names of those; None where too little is left.

    A list loses the entries that do not fit, a mapping the keys; what is missing has the shape's default.
    """
    left, refused = data, dict[str, None]()
    for _ in range(_ROUNDS):
        try:
            return shape.model_validate(left), list(refused)
        except ValidationError as error:
            paths = [one["loc"] for one in error.errors(include_input=False, include_url=False)]
            refused |= dict.fromkeys(_named(path) for path in paths)
            left = deepcopy(data) if left is data else left
            if not all(_take(place) for place in _last_first([_place(left, path) for path in paths])):
                break
    return None, list(refused)


def _named(path: _Path) -> str:
    """``curve.loss`` of ``("curve", 3, "loss", "float")``: the first two names."""
    return ".".join([str(part) for part in path if isinstance(part, str)][:2]) or "all of it"


def _place(data: Any, path: _Path) -> _Place | None:
    """The innermost part of `data` on `path`, as what holds it and its key; what is missing stands for its holder."""
    found = None
    for key in path:
        inside = key in data if isinstance(data, dict) else isinstance(data, list) and key in range(len(data))
        if not inside:
            break
        found, data = (data, key), data[key]
    return found


def _last_first(places: Sequence[_Place | None]) -> list[_Place | None]:
    """Each place once, so that taking one from a list moves none that is still to be taken."""
    once = {place if place is None else (id(place[0]), place[1]): place for place in places}
    return sorted(once.values(), key=lambda place: place[1] if place and isinstance(place[1], int) else 0, reverse=True)


def _take(place: _Place | None) -> bool:
    """Takes a part away; false where it is the whole."""
    if place is None:
        return False
    held, key = place
    del held[key]
    return True
