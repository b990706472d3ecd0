"""``archsearch bench truth``: every architecture of a spec on each task with each seed: a table of ground truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli import bench
from archsearch.cli.output import console

MOST = 1_000_000
"""Trainings of a table: far more than anybody waits for."""


def register(app: typer.Typer) -> None:
    """Adds the command to ``archsearch bench``."""
    bench.app.command("truth")(bench_truth)


def bench_truth(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Spec file, whose every architecture is trained.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The table, a line a training; gone on with if there.")],
    minutes: Annotated[
        float | None, typer.Option(metavar="M", min=0.0, help="Begin no training after so many minutes.")
    ] = None,
    part: Annotated[
        str, typer.Option(metavar="K/N", help="The K-th of N parts of the work, so that N processes share a file.")
    ] = "1/1",
) -> None:
    """Measures a space exhaustively: each architecture on each task with each of the spec's seeds.

    What the file has is not trained again, so that the same command goes on where it was stopped. Searches are run
    against the table by `archsearch bench search`.
    """
    from archsearch.errors import SpecError
    from archsearch.registry import load_registry
    from archsearch.search import Problem, SearchSpec
    from archsearch.search.truth.measure import measure

    index = _part(part)
    problem = Problem.of(SearchSpec.load(spec), load_registry())
    trainings = problem.space.count() * len(problem.tasks) * len(problem.search_seeds)
    if trainings > MOST:
        raise SpecError(
            f"{spec} asks for {trainings:,} trainings, and a table has at most {MOST:,}: narrow [space], or take fewer "
            "tasks or seeds"
        )
    until = float("inf") if minutes is None else time.monotonic() + 60.0 * minutes
    out, left = console(), None
    out.print(f"{trainings:,} trainings in all, part {part}: {file}", soft_wrap=True)
    begun = time.monotonic()
    for done, (cell, measured, left) in enumerate(measure(problem, file, until=until, part=index), 1):
        value = measured.validation.get(measured.metric)
        told = measured.status if value is None else f"{measured.metric} {value:.3f}"
        pace = (time.monotonic() - begun) / done
        out.print(
            f"{cell.name}, seed {cell.seed}: {measured.pattern}: {told} in {measured.train_seconds:.1f} s; "
            f"{left:,} left, about {left * pace / 60:.0f} min",
            soft_wrap=True,
        )
    if left:
        out.print(f"the time is up with {left:,} left: the same command goes on", soft_wrap=True)
    elif left == 0 or minutes is None:
        out.print(f"part {part} is complete" if part != "1/1" else "the table is complete", soft_wrap=True)
    else:
        out.print("nothing was trained: the part is complete, or there was no time", soft_wrap=True)


def _part(text: str) -> tuple[int, int]:
    """The place from 0 and the number of parts."""
    from archsearch.errors import SpecError

    first, slash, second = text.partition("/")
    if slash and first.isascii() and first.isdigit() and second.isascii() and second.isdigit():
        place, count = int(first), int(second)
        if 1 <= place <= count <= 1000:
            return place - 1, count
    raise SpecError(f'--part "{text}": give one of several parts, as 1/2 and 2/2, at most 1000')
