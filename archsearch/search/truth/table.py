"""The table of ground truth: what every architecture of a space scored on each task with each seed, once measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError, SpecError
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.truth.file import read_lines

PACKAGED = Path(__file__).with_name("three_layers.jsonl")
"""The table that comes with the package."""

Column = tuple[str, int]
"""A task, by the name that metrics carry, and a seed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training of the table. ``curve`` has the primary metric on validation at every look, as (step, value);
    ``steps`` is where the training ended, solved or through."""

    status: str
    learning_rate: float | None
    curve: tuple[tuple[int, float], ...]
    steps: int
    validation: Mapping[str, float]
    test: Mapping[str, float]

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """From a line of kind "run"."""
        return cls(
            status=line["status"],
            learning_rate=line["learning_rate"],
            curve=tuple((int(step), float(value)) for step, value in line["curve"]),
            steps=int(line["steps"]),
            validation=dict(line["validation"]),
            test=dict(line["test"]),
        )


@dataclass(frozen=True, kw_only=True)
class TruthTable:
    """A space that is measured exhaustively.

    ``columns`` are the whole ones, in which every architecture of the space has a row, by its digest; ``missing`` says
    of each other column how many rows it has. ``problem`` is that of the spec that the table was made of.
    """

    problem: Problem
    archs: tuple[ArchSpec, ...]
    columns: Mapping[Column, Mapping[str, Row]]
    missing: Mapping[Column, int]

    @classmethod
    def load(cls, path: Path, registry: Registry) -> Self:
        """Raises `SpecError` for a file that is no table, or of which no column is whole.

        Architectures are found by their digests, and by their patterns where a digest has changed since: options that
        were added to a mixer later do not make an older table useless.
        """
        lines = read_lines(path)
        if not lines:
            raise SpecError(f"{path} is not there, or empty: `archsearch bench truth SPEC {path}` measures a table")
        header = next((line for line in lines if line["kind"] == "table"), None)
        if header is None:
            raise SpecError(f"{path} has no line of kind table: it is no table of ground truth")
        problem = Problem.of(SearchSpec.from_dict(header["spec"]), registry)
        archs = tuple(problem.space.all())
        digests = {arch.digest: arch.digest for arch in archs}
        found: dict[Column, dict[str, Row]] = {
            (name, seed): {} for name in problem.tasks for seed in problem.search_seeds
        }
        for line in lines:
            if line["kind"] == "run":
                digest = digests.get(line["digest"]) or _by_pattern(line, problem, digests)
                if digest is not None and (line["task"], line["seed"]) in found:
                    found[line["task"], line["seed"]][digest] = _row(path, line)
        columns = {column: rows for column, rows in found.items() if len(rows) == len(archs)}
        missing = {column: len(rows) for column, rows in found.items() if column not in columns}
        if not columns:
            (task, seed), rows = max(found.items(), key=lambda pair: len(pair[1]))
            raise SpecError(
                f"{path} has no whole column yet: {task} with seed {seed} has {len(rows)} of {len(archs)} "
                "architectures: `archsearch bench truth` goes on with it"
            )
        return cls(problem=problem, archs=archs, columns=columns, missing=missing)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of which a column is whole, in the order of the spec."""
        return tuple(dict.fromkeys(task for task, _ in self.columns))

    def seeds(self, tasks: Sequence[str]) -> tuple[int, ...]:
        """The seeds of which the columns of all `tasks` are whole."""
        return tuple(seed for seed in self.problem.search_seeds if all((task, seed) in self.columns for task in tasks))

    @property
    def left_out(self) -> list[str]:
        """A sentence for each column that is not whole."""
        return [
            f"left out: {task}, seed {seed}, of which the table has {count} of {len(self.archs)} rows"
            for (task, seed), count in self.missing.items()
        ]

    def row(self, digest: str, task: str, seed: int) -> Row:
        """Raises `SpecError` for what the table has not."""
        rows = self.columns.get((task, seed), {})
        if digest not in rows:
            raise SpecError(f"the table has no {task} of {digest} with seed {seed}")
        return rows[digest]


def _by_pattern(line: dict[str, Any], problem: Problem, digests: dict[str, str]) -> str | None:
    """The digest now of a line whose own is not of the space; kept in `digests` for the next line."""
    try:
        arch = ArchSpec.parse(line["pattern"], problem.registry, problem.space.model)
    except ArchsearchError:
        return None
    if arch.digest not in digests:
        return None
    digests[line["digest"]] = arch.digest
    return arch.digest


def _row(path: Path, line: Mapping[str, Any]) -> Row:
    try:
        return Row.of(line)
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(
            f"{path}: the run of {line.get('pattern')} on {line.get('task')} cannot be read ({error!r}): take the "
            "line out, and `archsearch bench truth` measures it again"
        ) from None
