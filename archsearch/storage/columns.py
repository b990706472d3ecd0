"""Columns: what each column of the tables holds, and what becomes of a row that holds something else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsearch.exercise import Unexercised
from archsearch.storage import kinds
from archsearch.storage.kinds import LONGEST, Kind, brief, is_layer
from archsearch.storage.records import EPOCH, SEARCH_STATES, SPLITS, TRIAL_KINDS, TRIAL_STATES
from archsearch.storage.remarks import Remarks


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of some kind; ``mend`` makes another value of one that is not, or the row is left out.

    ``told`` says so in a remark.
    """

    kind: Kind
    mend: Callable[[Any], Any] | None = None
    told: str = "the row is left out"


def sound(
    table: str, rows: Sequence[Sequence[Any]], columns: Mapping[str, Column], remarks: Remarks
) -> dict[str, list[Any]]:
    """`rows` column by column, without those that hold what they may not; the first column is the row's id."""
    taken = {name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=bool(rows))}
    left_out: set[int] = set()
    for name, column in columns.items():
        values = taken.setdefault(name, [])
        if not column.kind.hold(values):
            left_out |= _mend(table, name, column, values, next(iter(taken.values())), remarks)
    if not left_out:
        return taken
    kept = [index for index in range(len(rows)) if index not in left_out]
    return {name: [values[index] for index in kept] for name, values in taken.items()}


def _mend(table: str, name: str, column: Column, values: list[Any], ids: Sequence[int], remarks: Remarks) -> set[int]:
    """Mends `values` in place; the rows where that cannot be."""
    left_out = set()
    for index, value in enumerate(values):
        if column.kind.hold((value,)):
            continue
        remarks.add(table, ids[index], name, f"{name} is {brief(value)}, not {column.kind.words}: {column.told}")
        if column.mend is None:
            left_out.add(index)
        else:
            values[index] = column.mend(value)
    return left_out


def _cut(value: Any) -> str:
    if not isinstance(value, str):
        return "" if value is None else brief(value)
    return f"{value[:LONGEST]}... ({len(value) - LONGEST:,} more characters were cut)"


def _layers(value: Any) -> list[dict[str, Any]]:
    """Entries that can be read, and texts for those that cannot: what was not exercised must not seem to be."""
    entries = value if isinstance(value, list) and value else [value]
    return [
        entry if is_layer(entry) else Unexercised(layer=brief(entry), task="", seq_len=0, dense_up_to=0).to_json()
        for entry in entries
    ]


def _needed(kind: Kind) -> Column:
    return Column(kind=kind)


def _mended(kind: Kind, value: Any, told: str) -> Column:
    return Column(kind=kind, mend=lambda _: value, told=told)


ID = _needed(kinds.WHOLE)
NAME = _needed(kinds.TEXT)
SAID = Column(kind=kinds.TEXT, mend=_cut, told=f"shown cut after {LONGEST:,} characters")
MAPPING = Column(kind=kinds.MAPPING, mend=lambda _: {}, told="read as empty")
LINK = _mended(kinds.WHOLE_OR_NONE, None, "read as none")
BEGUN = _mended(kinds.MOMENT, EPOCH, f"read as {EPOCH:%Y-%m-%d}")
ENDED = _mended(kinds.MOMENT_OR_NONE, None, "read as none")
OPTIONAL_NAME = _mended(kinds.TEXT_OR_NONE, None, "read as none")

SEARCH = {
    "id": ID,
    "name": NAME,
    "state": _needed(kinds.one_of("state of a search", SEARCH_STATES)),
    "reason": SAID,
    "spec": MAPPING,
    "objectives": Column(kind=kinds.OBJECTIVES, mend=lambda _: [], told="read as none"),
    "created_at": BEGUN,
    "heartbeat_at": BEGUN,
    "finished_at": ENDED,
    "driver": _mended(kinds.DRIVER, None, "read as none"),
    "beats": _mended(kinds.WHOLE, 0, "read as 0"),
    "fence": _mended(kinds.WHOLE, 0, "read as 0"),
    "owner": OPTIONAL_NAME,
    "tags": Column(kind=kinds.TAGS, mend=lambda _: [], told="read as none"),
    "note": SAID,
    "archived_at": ENDED,
}
"""Without one objective a front would be another front: where one cannot be read, there is none."""

TRIAL = {
    "id": ID,
    "search_id": ID,
    "number": _needed(kinds.COUNT),
    "kind": _needed(kinds.one_of("kind of trial", TRIAL_KINDS)),
    "state": _needed(kinds.one_of("state of a trial", TRIAL_STATES)),
    "reason": SAID,
    "arch": MAPPING,
    "digest": NAME,
    "pattern": SAID,
    "params": MAPPING,
    "seeds": _needed(kinds.SEEDS),
    "violations": Column(
        kind=kinds.EXCESSES, mend=lambda _: {"unreadable": math.nan}, told="the trial counts as over budget"
    ),
    "unexercised": Column(kind=kinds.LAYERS, mend=_layers, told="the trial counts as not exercised"),
    "parent_id": LINK,
    "created_at": BEGUN,
    "started_at": ENDED,
    "finished_at": ENDED,
    "attempts": _mended(kinds.COUNT, 0, "read as 0"),
    "placement": _mended(kinds.MAPPING_OR_NONE, None, "read as none"),
}

MEASUREMENT = {
    "id": ID,
    "trial_id": ID,
    "key": NAME,
    "task": NAME,
    "seed": ID,
    "status": _needed(kinds.one_of("status of a measurement", ("complete", "diverged"))),
    "payload": _needed(kinds.PAYLOAD),
    "reused_from": LINK,
    "created_at": BEGUN,
}

PROPOSAL = {
    "id": ID,
    "search_id": ID,
    "digest": NAME,
    "arch": _needed(kinds.MAPPING),
    "pattern": SAID,
    "owner": OPTIONAL_NAME,
    "created_at": BEGUN,
    "trial_id": LINK,
}

METRIC = {
    "trial_id": ID,
    "name": NAME,
    "split": _needed(kinds.one_of("split", SPLITS)),
    "task": _needed(kinds.TEXT_OR_NONE),
    "seed": _needed(kinds.WHOLE_OR_NONE),
    "step": _needed(kinds.WHOLE_OR_NONE),
    "value": _mended(kinds.NUMBER, None, "read as no number"),
}

PLUGIN = {"id": ID, "plugin": NAME, "distribution": OPTIONAL_NAME, "version": OPTIONAL_NAME}
PART = {"id": ID, "name": NAME, "version": NAME, "digest": NAME}

JOB = {
    "id": ID,
    "name": NAME,
    "key": NAME,
    "search": NAME,
    "address": NAME,
    "owner": OPTIONAL_NAME,
    "state": NAME,
    "reason": SAID,
    "spec": MAPPING,
    "plugins": Column(kind=kinds.OBJECTS, mend=lambda _: [], told="read as none"),
    "created_at": BEGUN,
    "updated_at": BEGUN,
    "finished_at": ENDED,
}
