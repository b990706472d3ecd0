"""Further metrics: what the objectives of a search name of its tasks beside the primary metric of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from archsearch.analysis.objectives import Direction, Objective


def further_metrics(objectives: Iterable[Objective], primary: Mapping[str, str]) -> dict[str, dict[str, Direction]]:
    """By task, the metrics that objectives name beside its ``primary`` one, with the direction in which each is better.

    "niah.accuracy@2x" is the metric ``accuracy@2x`` of the task ``niah``: on longer sequences, of one kind of position
    ("accuracy[2 hops]"), of speed ("tokens_to_half"), or of an evaluator. Costs and "recall", which is of several
    tasks, are none of them.
    """
    found: dict[str, dict[str, Direction]] = {}
    for objective in objectives:
        task = next((task for task in _longest_first(primary) if objective.name.startswith(f"{task}.")), None)
        if task is None or objective.is_cost:
            continue
        metric = objective.name.removeprefix(f"{task}.")
        if metric != primary[task]:
            found.setdefault(task, {})[metric] = objective.direction
    return found


def _longest_first(names: Iterable[str]) -> list[str]:
    """A task may be named like the beginning of another one's label."""
    return sorted(names, key=len, reverse=True)
