"""What a table of a spec is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MAX_CHOICES = 10_000
"""Mixers of a space, values of one option, ratios, and tasks: far more than anybody searches over."""


class Table(BaseModel):
    """A table of the file: frozen, unknown keys refused.

    The docstring of a table says each of its keys as a line "``key``: text": the reference of the documentation is made
    of these lines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
