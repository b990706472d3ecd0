"""What candidates are trained on, measured by and traded off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, StrictStr, field_validator, model_validator

from archsearch.costs import parse_context
from archsearch.errors import SpecError
from archsearch.numbers import Whole
from archsearch.search.tables.table import MAX_CHOICES, Table

MAX_CONTEXT = 2**50


class TaskTable(Table):
    """One of the tasks that every candidate is trained and judged on.

    ``name``: a task, as `archsearch plugins` lists them.
    ``setting``: one of its named difficulties; left out, the task's own default.
    ``options``: options that differ from the setting's, as a table ``[tasks.options]``.
    """

    name: str
    setting: str | None = None
    options: Mapping[str, Any] = {}


class MetricsTable(Table):
    """An evaluator of a plugin, whose metrics are measured of every trained model and may be objectives.

    ``name``: an evaluator, as `archsearch plugins` lists them.
    ``tasks``: tasks, as objectives name them, whose models it is asked about; left out, all.
    """

    name: str
    tasks: tuple[StrictStr, ...] = Field(default=(), max_length=MAX_CHOICES)


class ObjectivesTable(Table):
    """What is traded off, and the context at which costs are taken.

    ``maximize``: objectives of which more is better: "recall", the minimum over the recall tasks; "mqar.accuracy", one
    metric of one task ("mqar:capacity.accuracy" where the search has two settings of it), an evaluator's among them; or
    a cost.
    ``minimize``: objectives of which less is better, as a rule costs: "state_bytes", at another context
    "state_bytes@131072". "mqar.tokens_to_half" and "mqar.tokens_to_95" are the tokens that a training reads until its
    primary metric has half, or 95%, of what full attention gains.
    ``context``: tokens at which costs are taken that name no context; text such as "128Ki" is read too.
    """

    maximize: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    context: Whole = Field(default=32768, ge=1, le=MAX_CONTEXT)

    @field_validator("context", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        return parse_context(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = (*self.maximize, *self.minimize)
        if not names:
            raise SpecError('objectives: nothing to maximise or minimise: as maximize = ["recall"]')
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise SpecError(f'objectives names "{twice[0]}" twice: drop one')
        return self
