"""Tables of a spec that other tables are made of: what each of them is, and the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

MAX_CHOICES = 10_000
"""Mixers of a space, values of one option, ratios, and tasks: far more than anybody searches over."""


class Table(BaseModel):
    """A table of the file: frozen, unknown keys refused.

    The docstring of a table says each of its keys as a line "``key``: text": the reference of the documentation is made
    of these lines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskTable(Table):
    """One of the tasks that every candidate is trained and judged on.

    ``name``: a task, as `archsearch plugins` lists them.
    ``setting``: one of its named difficulties; left out, the task's own default.
    ``options``: options that differ from the setting's, as a table ``[tasks.options]``.
    """

    name: str
    setting: str | None = None
    options: Mapping[str, Any] = {}
