"""The fair table of docs/results.md, of the runs that benchmarks/fair.py has written: a row a task, a row a system."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import mode
from typing import Any

from archsearch.analysis.catalogue import catalogue, systems
from archsearch.analysis.compared import Compared
from archsearch.analysis.comparison import judged
from archsearch.analysis.objectives import Direction
from archsearch.analysis.scores import Score, scores_of
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.units import format_quantity
from reference.registered import registry
from reference.texts import code, table

RUNS = Path(__file__).parents[1] / "results" / "fair.jsonl"
BASELINE = "full"
CONTEXT = 131_072
SEEDS = 3
FEW = 15
"""Systems that a task lacks and that are named."""


def fair_table(runs: Path = RUNS) -> str:
    """One row a task, then one row a system, the best of the first task first; "+" and "-" are clear differences from
    full attention."""
    lines = [json.loads(line) for line in runs.read_text(encoding="utf-8").splitlines()]
    rows = _judged(lines)
    tasks = list(dict.fromkeys(name for row in rows for name in row.scores))
    usual = {task: _usual_seeds(rows, task) for task in tasks}
    families = {entry.name: entry.family for entry in catalogue(registry())}
    rows.sort(key=lambda row: _order(row, tasks[0]))
    columns = ["system", "family", "state at 128k", "FLOPs of a token at 128k", *tasks]
    cells = ([code(row.pattern), families.get(row.pattern, ""), *_costs(row), *_cells(row, usual)] for row in rows)
    return f"{_covered(rows)}\n\n{_measured(rows, lines)}\n\n{table(columns, cells)}"


def _covered(rows: Sequence[Compared]) -> str:
    """How many systems the table has, and the names of those that it lacks."""
    names = {entry.name for entry in systems(registry())}
    lacking = sorted(names - {row.pattern for row in rows})
    said = f"{len(rows)} of {len(names)} systems have a row."
    return f"{said} Not trained yet: {', '.join(map(code, lacking))}." if lacking else said


def _measured(rows: Sequence[Compared], lines: Sequence[Mapping[str, Any]]) -> str:
    """One row a task: what is measured, chance, and of how many systems with how many seeds; what is lacking is named
    where it is little."""
    first = {line["task"]: line for line in reversed(lines)}
    cells = []
    for task, line in sorted(first.items(), key=lambda item: list(rows[0].scores).index(item[0])):
        lacking = [row.pattern for row in rows if task not in row.scores]
        least = "" if not lacking else f": all but {', '.join(map(code, lacking))}" if len(lacking) <= FEW else ""
        chance = line["chance"]
        cells.append(
            [
                code(task),
                f"{line['metric']}, {'more' if line['direction'] == 'maximize' else 'less'} is better",
                "" if chance is None else f"{chance:.3f}",
                f"{len(rows) - len(lacking)} of {len(rows)}{least}",
                f"{_usual_seeds(rows, task)} of {SEEDS}",
            ]
        )
    return table(["task", "measured", "chance", "systems", "seeds"], cells)


def _usual_seeds(rows: Sequence[Compared], task: str) -> int:
    """Seeds that most systems have on the task."""
    return mode(len(row.scores[task].values) for row in rows if task in row.scores)


def _judged(lines: Sequence[Mapping[str, Any]]) -> list[Compared]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_name.setdefault(line["name"], []).append(line)
    rows = [_row(name, _newest(runs)) for name, runs in by_name.items()]
    base = next(row for row in rows if row.pattern == BASELINE)
    return [base, *judged(base, [row for row in rows if row is not base])]


def _newest(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The runs of the architecture that a system was last trained as: another one's stay in the file, and are not its
    seeds."""
    return [run for run in runs if run["digest"] == runs[-1]["digest"]]


def _row(name: str, runs: Sequence[Mapping[str, Any]]) -> Compared:
    arch = ArchSpec.parse(
        runs[0]["pattern"], registry(), ModelSpec(d_model=64, n_heads=2, channel_mixer="none", short_conv=4)
    )
    cost = CostModel(registry()).cost(arch, CONTEXT)
    return Compared(
        trial=0,
        pattern=name,
        digest=runs[0]["digest"],
        costs={name: cost.measure(name) for name in ("state_bytes", "decode_flops")},
        scores=scores_of(((run["task"], run) for run in runs), _further(runs)),
    )


def _further(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Direction]]:
    """What is told of state tracking beside its accuracy: that beyond the trained length."""
    tasks = {run["task"] for run in runs if run["task"].startswith("state_tracking")}
    return {task: {"accuracy@2x": "maximize"} for task in tasks}


def _order(row: Compared, task: str) -> tuple[bool, float]:
    score = row.scores.get(task)
    if score is None or not isfinite(score.mean):
        return (True, 0.0)
    return (False, -score.mean if score.direction == "maximize" else score.mean)


def _costs(row: Compared) -> list[str]:
    return [
        format_quantity(row.costs["state_bytes"], unit="bytes"),
        format_quantity(row.costs["decode_flops"], unit="FLOP"),
    ]


def _cells(row: Compared, usual: Mapping[str, int]) -> list[str]:
    return [_cell(row.scores.get(task), seeds) for task, seeds in usual.items()]


def _cell(score: Score | None, usual: int) -> str:
    """Mean and standard error; its seeds where they are not the ``usual`` number, whether it is clear of the baseline,
    and one rate alone good."""
    if score is None:
        return "not measured"
    if score.diverged:
        return "diverged"
    text = f"{score.mean:.3f}" + (f" ± {score.error:.3f}" if isfinite(score.error) else "")
    if (count := len(score.values)) != usual:
        text += f" ({count} seed{'s' if count > 1 else ''})"
    if score.against is not None and score.clear:
        text += " +" if score.better else " -"
    return text + (" fragile" if score.rates.fragile else "")
