"""Measuring a space exhaustively: every architecture of a spec, on each of its tasks, with each of its seeds."""

from __future__ import annotations

import fcntl
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
    with its result and how many of its part are left. Raises `SpecError` where the file is of another spec.
    """
    index, count = part
    lines = read_lines(path)
    _check_header(path, lines, problem)
    held = {(line["digest"], line["task"], line["seed"]) for line in lines if line["kind"] == "run"}
    missing = [cell for number, cell in enumerate(cells(problem)) if number % count == index]
    missing = [cell for cell in missing if cell.place not in held]
    if not lines:
        _append(path, {"kind": "table", "spec": problem.spec.to_json()}, first=True)
    sources = {line["source"] for line in lines if line["kind"] == "source"}
    for left, cell in zip(range(len(missing) - 1, -1, -1), missing, strict=True):
        if time.monotonic() >= until:
            return
        recipe = problem.recipe_of(cell.arch, cell.name)
        measured = evaluate(cell.arch, cell.task, recipe, cell.seed, registry=problem.registry)
        source = _source(measured.versions)
        if source not in sources:
            sources.add(source)
            _append(path, {"kind": "source", "source": source, "versions": dict(measured.versions)})
        _append(path, line_of(cell, measured, source))
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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none of one that there is not; raises `SpecError` for what is no line of a table."""
    if not path.exists():
        return []
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            known = line["kind"] in ("table", "source", "run")
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise SpecError(
                f"{path}, line {number} is no line of a table of ground truth: take it out, or another file"
            )
        found.append(line)
    return found


def _check_header(path: Path, lines: list[dict[str, Any]], problem: Problem) -> None:
    headers = [line for line in lines if line["kind"] == "table"]
    if lines and not headers:
        raise SpecError(f"{path} has lines but none of kind table: it is no table of ground truth")
    for header in headers:
        differ = [
            key for key in ("model", "space", "tasks", "recipe") if header["spec"][key] != problem.spec.to_json()[key]
        ]
        if differ:
            raise SpecError(
                f"{path} was made of a spec whose [{differ[0]}] is another one: give another file, or the spec it "
                "was made of"
            )


def _source(versions: Mapping[str, str]) -> str:
    """A short name of what a result was made by: packages, plugins and their sources."""
    text = json.dumps(dict(versions), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _append(path: Path, line: Mapping[str, Any], *, first: bool = False) -> None:
    """Adds a line that no other process's can run into; the ``first`` one only to an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (first and file.tell()):
            file.write(f"{json.dumps(line)}\n")
            file.flush()
