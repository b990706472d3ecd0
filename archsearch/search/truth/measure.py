"""Measuring a space exhaustively: every architecture of a spec, on each of its tasks, with each of its seeds."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.measurement import Measurement
from archsearch.search.problem import Problem
from archsearch.search.truth.file import append, read_lines
from archsearch.tasks import Task
from archsearch.training import evaluate

Place = tuple[str, str, int]
"""The digest of an architecture, a task by the name that metrics carry, and a seed."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training that a table consists of."""

    arch: ArchSpec
    name: str
    task: Task
    seed: int

    @property
    def place(self) -> Place:
        """Where it stands in the table."""
        return self.arch.digest, self.name, self.seed


def cells(problem: Problem) -> Iterator[Cell]:
    """Every training of the table, task by task and seed by seed, so that one that is cut short has whole columns."""
    for name, task in problem.tasks.items():
        for seed in problem.search_seeds:
            for arch in problem.space.all():
                yield Cell(arch=arch, name=name, task=task, seed=seed)


def measure(
    problem: Problem, path: Path, *, until: float = float("inf"), part: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Cell, Measurement, int]]:
    """Trains what the file lacks and adds each result to it as it comes, until `time.monotonic()` is `until`.

    ``part``, as (0, 2), takes every second of the trainings: several processes may write one file. Yields each cell
    with its result and how many of its part are left. Raises `SpecError` where the file is of another spec, and
    for one with evaluators, whose numbers no line has.
    """
    index, count = part
    if problem.spec.metrics:
        raise SpecError("a table of ground truth has what tasks measure, not what evaluators do: drop [[metrics]]")
    lines = read_lines(path)
    _check_header(path, lines, problem)
    held = {(line["digest"], line["task"], line["seed"]) for line in lines if line["kind"] == "run"}
    missing = [cell for number, cell in enumerate(cells(problem)) if number % count == index]
    missing = [cell for cell in missing if cell.place not in held]
    if not lines:
        append(path, {"kind": "table", "spec": problem.spec.to_json()}, first=True)
    sources = {line["source"] for line in lines if line["kind"] == "source"}
    for left, cell in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
        if time.monotonic() >= until:
            return
        recipe = problem.recipe_of(cell.arch, cell.name)
        measured = evaluate(cell.arch, cell.task, recipe, cell.seed, registry=problem.registry)
        source = _source(measured.versions)
        if source not in sources:
            sources.add(source)
            append(path, {"kind": "source", "source": source, "versions": dict(measured.versions)})
        append(path, line_of(cell, measured, source))
        yield cell, measured, left


def line_of(cell: Cell, measured: Measurement, source: str) -> dict[str, Any]:
    """A result as a line of the file: the primary metric at every look, and all metrics at the end."""
    return {
        "kind": "run",
        "pattern": measured.pattern,
        "digest": measured.digest,
        "task": cell.name,
        "seed": cell.seed,
        "status": measured.status,
        "learning_rate": measured.learning_rate,
        "curve": [[int(look["step"]), _short(look[measured.metric])] for look in measured.curve],
        "steps": measured.steps,
        "validation": {name: _short(value) for name, value in measured.validation.items()},
        "test": {name: _short(value) for name, value in measured.test.items()},
        "seconds": round(measured.train_seconds, 1),
        "key": measured.key,
        "source": source,
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _check_header(path: Path, lines: list[dict[str, Any]], problem: Problem) -> None:
    headers = [line for line in lines if line["kind"] == "table"]
    if lines and not headers:
        raise SpecError(f"{path} has lines but none of kind table: it is no table of ground truth")
    for header in headers:
        mine = problem.spec.to_json()
        differ = [key for key in ("seed", "model", "space", "tasks", "recipe") if header["spec"].get(key) != mine[key]]
        if differ:
            key = differ[0] if differ[0] == "seed" else f"[{differ[0]}]"
            raise SpecError(
                f"{path} was made of a spec whose {key} is another one: give another file, or the spec it was made of"
            )


def _source(versions: Mapping[str, str]) -> str:
    """A short name of what a result was made by: packages, plugins and their sources."""
    text = json.dumps(dict(versions), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
