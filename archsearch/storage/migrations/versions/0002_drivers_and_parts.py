"""Who drives a search, the parts of source that it ran, and layers that were not exercised as data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SENTENCE = re.compile(
    r"(?P<layer>.+) sees all of up to (?P<dense>\d{1,18}) tokens, measured on (?P<length>\d{1,18})"
    r"(?: by (?P<task>.+))?",
    re.DOTALL,
)
_BATCH = 1000
Layers = list[Any]


def upgrade() -> None:
    """From the schema before to this one."""
    op.add_column("search", sa.Column("driver", sa.JSON(), nullable=True))
    op.add_column("search", sa.Column("beats", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "part",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("search_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["search_id"], ["search.id"], name=op.f("fk_part_search_id_search")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_part")),
        sa.UniqueConstraint("search_id", "name", name=op.f("uq_part_search_id_name")),
    )
    _convert("trial", "unexercised", lambda layers: _as_data(layers, ""))
    _convert("measurement", "payload", lambda payload: _payload(payload, _as_data))


def downgrade() -> None:
    """Back to the schema before."""
    _convert("measurement", "payload", lambda payload: _payload(payload, lambda layers, task: _as_text(layers, "")))
    _convert("trial", "unexercised", lambda layers: _as_text(layers, " by {task}"))
    op.drop_table("part")
    op.drop_column("search", "beats")
    op.drop_column("search", "driver")


def _convert(table: str, column: str, convert: Callable[[Any], Any]) -> None:
    """Rewrites the JSON of a column where `convert` makes another of it; what is no JSON stays as it is."""
    rows = sa.table(table, sa.column("id", sa.Integer), sa.column(column, sa.JSON))
    for row_id, text in _texts(rows, column):
        try:
            before = json.loads(text)
            after = convert(before)
            if after != before:
                json.dumps(after, allow_nan=False)
                op.get_bind().execute(rows.update().where(rows.c.id == row_id).values({column: after}))
        except (TypeError, ValueError, LookupError, RecursionError):
            continue


def _texts(rows: sa.TableClause, column: str) -> Iterator[tuple[int, str]]:
    """The JSON of every row as it is written, in batches: payloads of a whole year would fill the memory."""
    last = -1
    while True:
        query = sa.select(rows.c.id, sa.cast(rows.c[column], sa.Text)).where(rows.c.id > last)
        found = op.get_bind().execute(query.order_by(rows.c.id).limit(_BATCH)).all()
        yield from ((row_id, text) for row_id, text in found)
        if len(found) < _BATCH:
            return
        last = found[-1][0]


def _payload(payload: Any, convert: Callable[[Layers, str], Layers]) -> Any:
    """A measurement's payload with other layers; its sentences named no task, as it is of one."""
    if not isinstance(payload, dict) or not isinstance(payload.get("unexercised"), list):
        return payload
    task = payload.get("task")
    return {**payload, "unexercised": convert(payload["unexercised"], task if isinstance(task, str) else "")}


def _as_data(layers: Any, task: str) -> Any:
    """Sentences as mappings, each once; one without a task goes where another tells the same of a task."""
    if not isinstance(layers, list):
        return layers
    found = _distinct(_read(entry, task) if isinstance(entry, str) else entry for entry in layers)
    named = [_without_task(entry) for entry in found if isinstance(entry, dict) and entry.get("task")]
    return [entry for entry in found if not _is_told(entry, named)]


def _read(sentence: str, task: str) -> dict[str, Any]:
    match = _SENTENCE.fullmatch(sentence)
    if match is None:
        return {"layer": sentence, "task": "", "seq_len": 0, "dense_up_to": 0}
    return {
        "layer": match["layer"],
        "task": match["task"] or task,
        "seq_len": int(match["length"]),
        "dense_up_to": int(match["dense"]),
    }


def _distinct(entries: Iterable[Any]) -> Layers:
    found: Layers = []
    for entry in entries:
        if entry not in found:
            found.append(entry)
    return found


def _without_task(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "task"}


def _is_told(entry: Any, named: Layers) -> bool:
    return isinstance(entry, dict) and entry.get("task") == "" and _without_task(entry) in named


def _as_text(layers: Any, by: str) -> Any:
    """Mappings as the sentences that the schema before holds."""
    if not isinstance(layers, list):
        return layers
    return [_sentence(entry, by) if isinstance(entry, dict) else entry for entry in layers]


def _sentence(entry: dict[str, Any], by: str) -> str:
    if not entry.get("seq_len"):
        return str(entry.get("layer", ""))
    words = "{layer} sees all of up to {dense_up_to} tokens, measured on {seq_len}" + (by if entry.get("task") else "")
    return words.format_map(entry)
