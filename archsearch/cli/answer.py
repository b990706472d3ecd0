"""The table of an answer: the front by number, then the references that are not on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archsearch.analysis.answer import Answer, marks
from archsearch.cli.output import table

if TYPE_CHECKING:
    from rich.table import Table

    from archsearch.analysis.objectives import Objective


def answer_table(answer: Answer) -> Table:
    """The front by number, then the references that are not on it."""
    rows = [[str(index), *_cells(answer, row)] for index, row in enumerate(answer.front.to_dict("records"), start=1)]
    rows += [["", *_cells(answer, row)] for row in answer.references.to_dict("records")]
    objectives = [f">{objective.name}" for objective in answer.objectives]
    return table([">#", ">trial", "pattern", *objectives, ">seeds", ""], rows)


def _cells(answer: Answer, row: Mapping[Any, Any]) -> list[str]:
    values = [_value(objective, row) for objective in answer.objectives]
    drawn = ", ".join(f"{key} = {value}" for key, value in answer.backbones.get(int(row["trial"]), {}).items())
    pattern = f"{row['pattern']} with {drawn}" if drawn else str(row["pattern"])
    return [str(row["trial"]), pattern, *values, str(len(row["seeds"])), marks(row)]


def _value(objective: Objective, row: Mapping[Any, Any]) -> str:
    low, high = row[f"{objective.name}_min"], row[f"{objective.name}_max"]
    spread = f" ({objective.show(low)}..{objective.show(high)})" if low < high else ""
    return objective.show(row[objective.name]) + spread
