"""``archsearch pareto``: the front of a search as a table, a drawing, a picture, or data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json

if TYPE_CHECKING:
    from pandas import DataFrame

    from archsearch.cli.answer import Answer, Objective


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
    from archsearch.cli.answer import read_answer
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


def choose_axes(answer: Answer, x: str | None, y: str | None) -> tuple[Objective, Objective]:
    """The objectives to draw: those named, else the first that is minimised across and maximised upwards.

    Raises `SpecError` for a name that is no objective of the search.
    """
    from archsearch.errors import SpecError, listing, nearest

    objectives = {objective.name: objective for objective in answer.objectives}
    for given in (x, y):
        if given is not None and given not in objectives:
            raise SpecError(
                f'"{given}" is no objective of {answer.search.name}{nearest(given, objectives)}: '
                f"it has {listing(objectives)}"
            )
    ordered = list(objectives.values())
    falling = [objective for objective in ordered if objective.direction == "minimize"]
    rising = [objective for objective in ordered if objective.direction == "maximize"]
    across = objectives[x] if x else next((item for item in [*falling, *ordered] if item.name != y), ordered[0])
    rest = [item for item in [*rising, *ordered] if item is not across]
    return across, objectives[y] if y else (rest or ordered)[0]


def show_answer(answer: Answer, across: Objective, upwards: Objective) -> None:
    """Prints the front: the table, the drawing, and what it is valid for."""
    out = console()
    out.print(
        f"{answer.search.name}: {answer.state}, {len(answer.front)} of {len(answer.points)} candidates on the front"
    )
    if len(answer.front) or len(answer.references):
        out.print(answer.table())
    if not len(answer.front):
        out.print(f"no front yet: {answer.why_no_front()}", soft_wrap=True)
    elif across.name != upwards.name:
        out.print(draw(answer, across, upwards), soft_wrap=True)
        out.print("numbers: the front as in the table; R: a reference; ·: dominated; x: sparsity not exercised")
    levels = {objective.name: answer.chance(objective) for objective in answer.objectives}
    for name, level in levels.items():
        if level is not None:
            out.print(f"a guess has {name} {level:.3f}")
    out.print(answer.validity.sentence, soft_wrap=True)


def draw(answer: Answer, across: Objective, upwards: Objective) -> str:
    """The front in the terminal."""
    from archsearch.cli.chart import Axis, scatter, spans_decades
    from archsearch.cli.ticks import ticks

    groups = [
        _pairs(rows, across, upwards)
        for rows in (answer.front, answer.references, answer.dominated, answer.not_exercised)
    ]
    axes = []
    for index, objective in enumerate((across, upwards)):
        values = [pair[index] for group in groups for pair in group]
        log = objective.is_cost and spans_decades(values)
        axes.append(Axis(label=axis_label(objective), ticks=ticks(values, unit=objective.unit, log=log), log=log))
    return scatter(groups[0], dict(zip("R·x", groups[1:], strict=True)), axes[0], axes[1])


def _pairs(rows: DataFrame, across: Objective, upwards: Objective) -> list[tuple[float, float]]:
    drawn = rows.dropna(subset=[across.name, upwards.name])
    return [(float(row[across.name]), float(row[upwards.name])) for row in drawn.to_dict("records")]


def axis_label(objective: Objective) -> str:
    """An objective with its context and whether less or more is better."""
    context = f" at {objective.context:,} tokens" if objective.context else ""
    measured = "" if objective.is_cost else " (test)"
    return f"{objective.name.partition('@')[0] if context else objective.name}{context}{measured}"


def _write_csv(answer: Answer, path: str) -> str:
    """Every measured candidate, and where it is valid in columns of its own, so that a row can stand alone."""
    from archsearch.errors import ArchsearchError

    rows = answer.points[answer.points["state"] == "complete"].drop(columns=["state"])
    rows = rows.rename(columns={"feasible": "within_budget"})
    rows.insert(3, "on_front", rows["digest"].isin(answer.front["digest"]))
    rows["seeds"] = [" ".join(map(str, seeds)) for seeds in rows["seeds"]]
    rows = rows.assign(search=answer.search.name, valid_for=answer.validity.sentence)
    try:
        rows.to_csv(path, index=False)
    except OSError as error:
        raise ArchsearchError(f"cannot write {path}: {error.strerror or error}: name another file") from None
    return path


def _write_png(answer: Answer, across: Objective, upwards: Objective, path: str) -> str:
    from archsearch.cli.picture import write_picture

    write_picture(answer, across, upwards, path)
    return path
