"""``archsearch pareto``: the front of a search as a table, a drawing, a picture, or data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, writing

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Console

    from archsearch.analysis.answer import Answer
    from archsearch.analysis.objectives import Objective
    from archsearch.cli.chart import Paper


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("pareto")(pareto)


def pareto(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the search, as `archsearch searches` lists it.")],
    png: Annotated[str | None, typer.Option("--png", metavar="FILE", help="Write the front as a picture.")] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write every candidate as CSV.")] = None,
    x: Annotated[str | None, typer.Option("--x", metavar="OBJECTIVE", help="Across; by default a cost.")] = None,
    y: Annotated[
        str | None, typer.Option("--y", metavar="OBJECTIVE", help="Upwards; by default what is gained.")
    ] = None,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Shows the front of a search.

    The architectures that nothing else beats in every objective, with the references beside them.
    """
    from archsearch.analysis.answer import read_answer
    from archsearch.analysis.axes import choose_axes
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), read_only=True) as store:
        answer = read_answer(store, name)
    across, upwards = choose_axes(answer, x, y)
    written = []
    if csv is not None:
        written.append(_write_csv(answer, csv))
    if png is not None:
        written.append(_write_png(answer, across, upwards, png))
    if json:
        print_json(answer.to_json())
        return
    out = console()
    show_answer(answer, across, upwards)
    for path in written:
        out.print(f"written: {path}", soft_wrap=True)


def show_answer(answer: Answer, across: Objective, upwards: Objective, out: Console | None = None) -> None:
    """Prints the front on `out`, by default stdout: the table, the drawing, and what it is valid for."""
    from archsearch.cli.answer import answer_table
    from archsearch.cli.chart import Paper

    out = out or console()
    paper = Paper.of(out)
    out.print(
        f"{answer.search.name}: {answer.state}, {len(answer.front)} of {len(answer.points)} candidates on the front"
    )
    if len(answer.front) or len(answer.references):
        out.print(answer_table(answer))
    if not len(answer.front):
        out.print(f"no front yet: {answer.why_no_front()}", soft_wrap=True)
    elif across.name != upwards.name:
        out.print(draw(answer, across, upwards, paper), soft_wrap=True)
        out.print(
            f"numbers: the front as in the table; R: a reference; {paper.dominated}: dominated; "
            "x: sparsity not exercised"
        )
    if answer.finding is not None:
        out.print(f"\n{answer.finding.sentence}.\n", soft_wrap=True)
    levels = {objective.name: answer.chance(objective) for objective in answer.objectives}
    for name, level in levels.items():
        if level is not None:
            out.print(f"a guess has {name} {level:.3f}")
    out.print(answer.validity.sentence, soft_wrap=True)


def draw(answer: Answer, across: Objective, upwards: Objective, paper: Paper) -> str:
    """The front in the terminal."""
    from archsearch.analysis.axes import axis_label, spans_decades, ticks
    from archsearch.cli.chart import Axis, scatter

    groups = [
        _pairs(rows, across, upwards)
        for rows in (answer.front, answer.references, answer.dominated, answer.not_exercised)
    ]
    axes = []
    for index, objective in enumerate((across, upwards)):
        values = [pair[index] for group in groups for pair in group]
        log = objective.is_cost and spans_decades(values)
        axes.append(Axis(label=axis_label(objective), ticks=ticks(values, unit=objective.unit, log=log), log=log))
    marked = dict(zip(("R", paper.dominated, "x"), groups[1:], strict=True))
    return scatter(groups[0], marked, axes[0], axes[1], paper)


def _pairs(rows: DataFrame, across: Objective, upwards: Objective) -> list[tuple[float, float]]:
    drawn = rows.dropna(subset=[across.name, upwards.name])
    return [(float(row[across.name]), float(row[upwards.name])) for row in drawn.to_dict("records")]


def _write_csv(answer: Answer, path: str) -> str:
    """Every measured candidate, and where it is valid in columns of its own, so that a row can stand alone."""
    from pathlib import Path

    from archsearch.analysis.csv_text import csv_bytes

    rows = answer.points[answer.points["state"] == "complete"].drop(columns=["state"])
    rows = rows.rename(columns={"feasible": "within_budget"})
    rows.insert(3, "on_front", rows["digest"].isin(answer.front["digest"]))
    rows["seeds"] = [" ".join(map(str, seeds)) for seeds in rows["seeds"]]
    rows = rows.assign(search=answer.search.name, valid_for=answer.validity.sentence)
    with writing(path):
        Path(path).write_bytes(csv_bytes(rows))
    return path


def _write_png(answer: Answer, across: Objective, upwards: Objective, path: str) -> str:
    from archsearch.cli.picture import write_picture

    write_picture(answer, across, upwards, path)
    return path
