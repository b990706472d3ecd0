"""The fair table of docs/results.md, from the runs that benchmarks/fair.py has written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
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


def fair_table(runs: Path = RUNS) -> str:
    """One row a system, the best of the first task first; "+" and "-" are clear differences from full attention."""
    lines = [json.loads(line) for line in runs.read_text(encoding="utf-8").splitlines()]
    rows = _judged(lines)
    tasks = list(dict.fromkeys(name for row in rows for name in row.scores))
    families = {entry.name: entry.family for entry in catalogue(registry())}
    rows.sort(key=lambda row: _order(row, tasks[0]))
    columns = ["system", "family", "state at 128k", "FLOPs of a token at 128k", *tasks]
    cells = ([code(row.pattern), families.get(row.pattern, ""), *_costs(row), *_cells(row, tasks)] for row in rows)
    return f"{_covered(rows)}\n\n{table(columns, cells)}"


def _covered(rows: Sequence[Compared]) -> str:
    """How much of the table there is, and the names of the systems that it lacks."""
    names = {entry.name for entry in systems(registry())}
    lacking = sorted(names - {row.pattern for row in rows})
    counts = [len(score.values) for row in rows for score in row.scores.values()]
    seeds = " to ".join(dict.fromkeys(str(count) for count in (min(counts), max(counts))))
    said = f"{len(rows)} of {len(names)} systems have a row, with {seeds} of {SEEDS} seeds."
    return f"{said} Not trained yet: {', '.join(map(code, lacking))}." if lacking else said


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


def _cells(row: Compared, tasks: Sequence[str]) -> list[str]:
    return [_cell(row.scores.get(task)) for task in tasks]


def _cell(score: Score | None) -> str:
    """Mean and standard error; what it lacks of seeds, whether it is clear of the baseline, and one rate alone good."""
    if score is None:
        return "not measured"
    if score.diverged:
        return "diverged"
    text = f"{score.mean:.3f}" + (f" ± {score.error:.3f}" if isfinite(score.error) else "")
    if len(score.values) < SEEDS:
        text += f" ({len(score.values)} of {SEEDS} seeds)"
    if score.against is not None and score.clear:
        text += " +" if score.better else " -"
    return text + (" fragile" if score.rates.fragile else "")
