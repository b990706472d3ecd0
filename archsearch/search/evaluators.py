"""Evaluators of a search: which are asked about the models of which task, and the objectives that they offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from archsearch.analysis.objectives import Direction
from archsearch.analysis.speed import SHARES
from archsearch.errors import SpecError, UnknownNameError, listing, nearest
from archsearch.registry import Registry
from archsearch.tasks import Task

if TYPE_CHECKING:
    from archsearch.search.tables.objectives import MetricsTable


def evaluators_of(
    tables: Sequence[MetricsTable], tasks: Mapping[str, Task], registry: Registry
) -> dict[str, tuple[str, ...]]:
    """The names of evaluators by task, in the order of the spec; raises `SpecError` naming the key for a name that is
    unknown or given twice, and for two metrics of one name."""
    found: dict[str, list[str]] = {}
    for index, table in enumerate(tables):
        where = f"metrics[{index}]"
        try:
            registry.evaluator(table.name)
        except UnknownNameError as error:
            raise SpecError(f"{where}: {error}") from None
        for task in table.tasks:
            if task not in tasks:
                raise SpecError(
                    f'{where}.tasks names "{task}"{nearest(task, tasks)}, which is no task of the search: they are '
                    f"{listing(tasks)}"
                )
        for task in table.tasks or tasks:
            names = found.setdefault(task, [])
            if table.name in names:
                raise SpecError(f'{where}: "{table.name}" is asked twice about models of {task}: drop one')
            names.append(table.name)
    for task, names in found.items():
        _refuse_shared(task, tasks[task], names, registry)
    return {task: tuple(names) for task, names in found.items()}


def metric_of(evaluators: Sequence[str], registry: Registry) -> dict[str, Direction]:
    """The metrics of evaluators, with the direction in which each is better."""
    return {
        name: metric.direction
        for evaluator in evaluators
        for name, metric in registry.evaluator(evaluator).metrics.items()
    }


def _refuse_shared(task: str, resolved: Task, names: Sequence[str], registry: Registry) -> None:
    """A name stands for one number of a model."""
    owners = {resolved.metric: "the task"} | dict.fromkeys(SHARES, "every task")
    for name in names:
        for metric in registry.evaluator(name).metrics:
            if metric in owners:
                raise SpecError(
                    f'metrics: "{metric}" of the evaluator "{name}" is a metric of {owners[metric]} already, for '
                    f"{task}: rename it in the evaluator, or ask one of them"
                )
            owners[metric] = f'the evaluator "{name}"'
