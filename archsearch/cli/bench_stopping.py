"""``archsearch bench stopping``: early stopping replayed over a table of ground truth: what it saves, what it loses."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli import bench
from archsearch.cli.output import check_writable, console, table, writing
from archsearch.cli.sampler_names import sampler_names

if TYPE_CHECKING:
    from archsearch.search.tables.search import EarlyStopTable
    from archsearch.search.truth.stopping_study import StoppingRow

MOST_SEARCHES = 1000

USUAL = ("random", "nsga2", "ehvi")
"""What draws the same with a rule and without, an evolution, and what searches take by default."""


def register(app: typer.Typer) -> None:
    """Adds the command to ``archsearch bench``."""
    bench.app.command("stopping")(bench_stopping)


def bench_stopping(
    truth: Annotated[Path, typer.Argument(metavar="TABLE", help="Table of ground truth.")],
    tasks: Annotated[str, typer.Option(metavar="NAMES", help="Only these of its tasks, by commas.")] = "",
    seeds: Annotated[int | None, typer.Option(min=1, help="Only so many of its seeds.")] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler", metavar="NAME", help="May be repeated; else random, nsga2 and ehvi."),
    ] = None,
    others: Annotated[str, typer.Option(metavar="NUMBERS", help="search.early_stop.others, by commas.")] = "1,3,5",
    noise: Annotated[str, typer.Option(metavar="NUMBERS", help="search.early_stop.noise, by commas.")] = "0,1,2",
    grace: Annotated[str, typer.Option(metavar="NUMBERS", help="search.early_stop.grace, by commas.")] = "0.25",
    searches: Annotated[int, typer.Option(min=1, max=MOST_SEARCHES, help="Searches a row, each with its seed.")] = 20,
    trials: Annotated[int, typer.Option(metavar="N", min=2, max=100_000, help="Trials a search.")] = 48,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to a file.")] = None,
) -> None:
    """Replays searches over a table in place of training, with rules of early stopping and without.

    Of each rule: the share of training steps that it saves, the share of the table's hypervolume (on test) that a
    search finds with it and without, how many candidates it stops, how many of those would stand on the front of what
    the search drew, and how many on the true front.
    """
    from archsearch.registry import load_registry
    from archsearch.search.truth.stopping_study import StoppingCase, studied
    from archsearch.search.truth.table import TruthTable

    check_writable(json)
    rules, samplers = _rules(others, noise, grace), sampler_names(sampler, USUAL)
    named = [name.strip() for name in tasks.split(",") if name.strip()]
    held = TruthTable.load(truth, load_registry())
    read = StoppingCase.of(held, tasks=named, seeds=seeds)
    case, out = read.case, console()
    front = len(case.true_front(case.seeds[: read.seeds]))
    for line in held.left_out:
        out.print(line, soft_wrap=True)
    out.print(
        f"{', '.join(case.tasks)}; {read.seeds} seeds of each; {len(case.feasible)} candidates within the budget, "
        f"{front} of them on the front; {searches} searches of {trials} trials a row",
        soft_wrap=True,
    )
    rows = list(studied(read, samplers=samplers, tables=rules, trials=trials, searches=searches))
    out.print(table(_COLUMNS, map(_cells, rows)))
    if json is not None:
        _write(json, case.tasks, read.seeds, len(case.feasible), front, rows)
        out.print(f"written: {json}", soft_wrap=True)


_COLUMNS = (
    "sampler",
    ">others",
    ">noise",
    ">grace",
    ">steps saved",
    ">volume",
    ">without",
    ">stopped",
    ">of its front",
    ">of the true front",
)


def _cells(row: StoppingRow) -> list[str]:
    rule = row.table
    return [
        row.sampler,
        str(rule.others),
        f"{rule.noise:g}",
        f"{rule.grace:g}",
        f"{row.saved:.1%}",
        f"{row.volume:.1%}",
        f"{row.volume_without:.1%}",
        f"{row.stopped:.1f}",
        f"{row.wrongly:.2f}",
        f"{row.wrongly_true:.2f}",
    ]


def _rules(others: str, noise: str, grace: str) -> list[EarlyStopTable]:
    """A rule of each combination."""
    wanted = product(_numbers("others", others), _numbers("noise", noise), _numbers("grace", grace))
    return [_rule({"others": int(k) if k.is_integer() else k, "noise": z, "grace": g}) for k, z, g in wanted]


def _rule(values: dict[str, Any]) -> EarlyStopTable:
    from pydantic import ValidationError

    from archsearch.arch import explain
    from archsearch.errors import SpecError
    from archsearch.search.tables.search import EarlyStopTable

    try:
        return EarlyStopTable(**values)
    except ValidationError as error:
        raise SpecError(explain(error, EarlyStopTable, "search.early_stop")) from None


def _numbers(name: str, text: str) -> list[float]:
    from archsearch.errors import SpecError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SpecError(f'--{name} "{text}": give numbers by commas, as 1,3') from None


def _write(path: Path, tasks: Any, seeds: int, candidates: int, front: int, rows: list[StoppingRow]) -> None:
    """The figures, those of one rule and sampler an entry."""
    from dataclasses import asdict
    from json import dumps

    data = {
        "tasks": list(tasks),
        "seeds": seeds,
        "candidates": candidates,
        "front": front,
        "rows": [{**asdict(row), "table": row.table.model_dump()} for row in rows],
    }
    with writing(path):
        path.write_text(dumps(data, indent=1) + "\n", encoding="utf-8")
