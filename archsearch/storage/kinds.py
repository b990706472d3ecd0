"""Kinds: what a column may hold when it is read, as anybody may have written to the database."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from types import NoneType
from typing import Any

from archsearch.exercise import Unexercised
from archsearch.storage.driver import Driver

LONGEST = 10_000
"""Characters of a text that are read; a longer one is cut."""

_MOST_WHOLE = 2**63 - 1
"""What a column of whole numbers holds at most."""

_SHOWN = 60
Values = Collection[Any]


@dataclass(frozen=True)
class Unreadable:
    """What the database holds where the column's own form cannot be read: JSON that is none, a moment that is none."""

    raw: Any

    def __repr__(self) -> str:
        return repr(self.raw)


def brief(value: Any) -> str:
    """A value as it is shown in a sentence."""
    if isinstance(value, Unreadable):
        return brief(value.raw)
    text = repr(value[: 2 * _SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def read_json(text: Any) -> Any:
    """The value of a JSON column; numbers that JSON has no word for are None, as they are stored."""
    try:
        return json.loads(text, parse_constant=lambda word: None)
    except (TypeError, ValueError, RecursionError):
        return Unreadable(text)


def _always(values: Values) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Values of some exact types of which ``also`` holds; asked for whole columns, which takes little time."""

    words: str
    types: frozenset[type]
    also: Callable[[Values], bool] = _always

    def hold(self, values: Values) -> bool:
        """Whether all `values` are of this kind."""
        return set(map(type, values)) <= self.types and self.also(values)


def _kind(words: str, *types: type, also: Callable[[Values], bool] = _always) -> Kind:
    return Kind(words=words, types=frozenset(types), also=also)


def _short(values: Values) -> bool:
    return max(map(len, filter(None, values)), default=0) <= LONGEST


def _counts(values: Values) -> bool:
    return min(values, default=0) >= 0


def _storable(values: Values) -> bool:
    numbers = [value for value in values if value is not None]
    return min(numbers, default=0) >= -_MOST_WHOLE and max(numbers, default=0) <= _MOST_WHOLE


def _finite(values: Iterable[Any]) -> bool:
    try:
        return all(map(math.isfinite, filter(None, values)))
    except OverflowError:  # a whole number beyond floats, of which JSON may have 4,000 digits
        return False


def _seeds(values: Values) -> bool:
    return WHOLE.hold(list(chain.from_iterable(values)))


def _excesses(values: Values) -> bool:
    found = [excess for violations in values if violations for excess in violations.values()]
    return NUMBER.hold(found)


def _layers(values: Values) -> bool:
    return all(is_layer(entry) for entries in values if entries for entry in entries)


def is_layer(entry: Any) -> bool:
    """Whether `entry` is what `Unexercised.to_json` gives."""
    if not isinstance(entry, dict) or set(entry) != set(Unexercised.__dataclass_fields__):
        return False
    texts, numbers = (entry["layer"], entry["task"]), (entry["seq_len"], entry["dense_up_to"])
    return TEXT.hold(texts) and WHOLE.hold(numbers)


def _objectives(values: Values) -> bool:
    return all(all(map(_is_objective, entries)) and _distinct(entries) for entries in values)


def _distinct(objectives: list[dict[str, Any]]) -> bool:
    """Two of one name would be one column of a frame."""
    return len({entry["name"] for entry in objectives}) == len(objectives)


def _is_objective(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    texts = (entry.get("name"), entry.get("unit", ""), entry.get("metric") or "")
    return TEXT.hold(texts) and entry.get("direction") in ("minimize", "maximize")


def _drivers(values: Values) -> bool:
    try:
        return all(value is None or Driver.from_json(value) is not None for value in values)
    except ValueError:
        return False


def _payloads(values: Values) -> bool:
    return all(map(_is_payload, values))


def _is_payload(payload: dict[str, Any]) -> bool:
    """Whether what a payload has is of the measurement's shape; old ones need not have everything."""
    given = {name: kind for name, kind in _PAYLOAD.items() if name in payload}
    return all(kind.hold((payload[name],)) for name, kind in given.items())


def is_measurement(payload: dict[str, Any], *, key: str, seed: int, status: str) -> bool:
    """Whether a payload of kind `PAYLOAD` is the measurement that its row says it is, so that it may be reused."""
    told = (payload.get("key"), payload.get("seed"), payload.get("status"))
    return told == (key, seed, status) and {"task", "validation", "test"} <= set(payload)


def _named_numbers(values: Values) -> bool:
    return NUMBER.hold([number for value in values for number in value.values()])


def _named_texts(values: Values) -> bool:
    return TEXT_OR_NONE.hold([text for value in values for text in value.values()])


def _curves(values: Values) -> bool:
    entries = list(chain.from_iterable(values))
    return MAPPING.hold(entries) and _named_numbers(entries) and all(_is_step(entry.get("step")) for entry in entries)


def _is_step(step: Any) -> bool:
    """A count of steps, which a training writes as a float, as all of a curve's numbers."""
    whole = type(step) is int or (type(step) is float and step.is_integer())
    return whole and step >= 0


def _sweeps(values: Values) -> bool:
    entries = list(chain.from_iterable(values))
    return MAPPING.hold(entries) and _NUMBERS.hold([entry["validation"] for entry in entries if "validation" in entry])


def _seed_texts(values: Values) -> bool:
    return None not in map(numbers_of, set(values))


@lru_cache(maxsize=4096)
def numbers_of(text: str) -> tuple[int, ...] | None:
    """The whole numbers of a JSON list, None where the text is no such list."""
    found = read_json(text)
    return tuple(found) if SEEDS.hold((found,)) else None


def one_of(words: str, known: Iterable[str]) -> Kind:
    """Some texts that are known."""
    names = frozenset(known)
    return _kind(f"a known {words}", str, also=lambda values: set(values) <= names)


TEXT = _kind(f"text of at most {LONGEST:,} characters", str, also=_short)
TEXT_OR_NONE = _kind(TEXT.words, str, NoneType, also=_short)
WHOLE = _kind("a whole number", int, also=_storable)
WHOLE_OR_NONE = _kind("a whole number", int, NoneType, also=_storable)
COUNT = _kind("a whole number from 0 on", int, also=_counts)
NUMBER = _kind("a finite number", int, float, NoneType, also=_finite)
FLAG = _kind("known", bool)
MOMENT = _kind("a moment", datetime)
MOMENT_OR_NONE = _kind("a moment", datetime, NoneType)
MAPPING = _kind("a JSON object", dict)
MAPPING_OR_NONE = _kind("a JSON object", dict, NoneType)
OBJECTS = _kind("a list of JSON objects", list, also=lambda values: MAPPING.hold(list(chain.from_iterable(values))))
TAGS = _kind("a list of texts", list, also=lambda values: TEXT.hold(list(chain.from_iterable(values))))
SEEDS = _kind("a list of whole numbers", list, also=_seeds)
SEED_TEXT = _kind(SEEDS.words, str, also=_seed_texts)
EXCESSES = _kind("a JSON object of numbers", dict, also=_excesses)
LAYERS = _kind("a list of layers that were not exercised", list, also=_layers)
OBJECTIVES = _kind("a list of objectives with a name of its own and a direction", list, also=_objectives)
DRIVER = _kind("a driver", dict, NoneType, also=_drivers)
PAYLOAD = _kind("a measurement", dict, also=_payloads)

_NUMBERS = _kind("numbers by name", dict, also=_named_numbers)
_TEXTS = _kind("texts by name", dict, also=_named_texts)
_PAYLOAD = {
    "key": TEXT,
    "digest": TEXT,
    "pattern": TEXT,
    "arch": MAPPING,
    "task": TEXT,
    "task_options": MAPPING,
    "metric": TEXT,
    "direction": one_of("direction", ("minimize", "maximize")),
    "recall": FLAG,
    "chance": NUMBER,
    "recipe": MAPPING,
    "seed": WHOLE,
    "reason": TEXT_OR_NONE,
    "learning_rate": NUMBER,
    "steps": WHOLE,
    "solved_at": WHOLE_OR_NONE,
    "validation": _NUMBERS,
    "test": _NUMBERS,
    "sweep": _kind("a list of rates", list, also=_sweeps),
    "curve": _kind("a curve", list, also=_curves),
    "unexercised": LAYERS,
    "seq_len": WHOLE,
    "params": WHOLE,
    "costs": MAPPING,
    "tokens_per_second": NUMBER,
    "train_seconds": NUMBER,
    "peak_memory_bytes": WHOLE,
    "versions": _TEXTS,
    "judged": TEXT_OR_NONE,
}
"""By field of a `Measurement`."""
