"""``archsearch ladder``: the rungs of a ladder, and how far each could be trusted for the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table

if TYPE_CHECKING:
    from archsearch.analysis.ladder import Ladder, Metric, Rung, StepUp
    from archsearch.analysis.power_law import PowerLaw


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("ladder")(ladder)


def ladder(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a search with rungs, or of one of its rungs.")],
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Says how far a small size could be trusted for the next one.

    Of a search with [[rung]]: what was carried up, rank correlation from rung to rung with its bounds, who rose and who
    fell, and from three rungs on a power law of loss against training FLOPs with the crossings that it predicts.
    """
    from archsearch.analysis.ladder_json import ladder_json
    from archsearch.analysis.ladder_reading import read_ladder
    from archsearch.analysis.ladder_text import remarks
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), read_only=True) as store:
        found = read_ladder(store, name)
    if json:
        print_json(ladder_json(found))
        return
    out = console()
    out.print(table(["rung", "search", "state", "size", ">carried up to it", ""], map(_rung, found.rungs)))
    for rung in found.rungs:
        for pattern, reason in rung.left.items():
            out.print(f"left behind on rung {rung.number}: {pattern}: {reason}", soft_wrap=True)
    for step in found.steps:
        _print_step(out, found, step)
    for metric in found.metrics:
        _print_laws(out, found, metric)
    for line in remarks(found):
        out.print(line, soft_wrap=True)


def _rung(rung: Rung) -> list[str]:
    from archsearch.analysis.ladder_text import size_of

    carried = "" if rung.number == 1 else str(sum(one.why != "reference" for one in rung.standings))
    late = f"{rung.late} measured after the next rung was begun" if rung.late else ""
    return [str(rung.number), rung.search, rung.state, size_of(rung), carried, late]


def _print_step(out: Any, found: Ladder, step: StepUp) -> None:
    from archsearch.analysis.ladder_text import agreement_of, move_of

    out.print(f"\nrung {step.below} to {step.above}, {step.metric.name}: {agreement_of(step)}", soft_wrap=True)
    if step.moves:
        rows = ([f"{move.below} to {move.above}", move_of(move), found.labels[move.key]] for move in step.moves)
        out.print(table([">place", "", "pattern"], rows))


def _print_laws(out: Any, found: Ladder, metric: Metric) -> None:
    from archsearch.analysis.ladder_text import crossing_of
    from archsearch.analysis.power_law import PowerLaw

    if len(found.rungs) < 3:
        return
    laws = found.laws(metric)
    fitted = [(found.labels[key], law) for key, law in laws.items() if isinstance(law, PowerLaw)]
    loss = f"1 - {metric.name}" if metric.maximize else metric.name
    if fitted:
        out.print(f"\n{loss} = floor + scale * FLOPs ** -exponent", soft_wrap=True)
        out.print(table(["pattern", ">floor", ">exponent", ">at the largest", ">at 10 times that"], map(_law, fitted)))
    for key, law in laws.items():
        if isinstance(law, str):
            out.print(f"no law of {loss} for {found.labels[key]}: {law}", soft_wrap=True)
    for crossing in found.crossings(metric):
        out.print(crossing_of(crossing, found), soft_wrap=True)


def _law(row: tuple[str, PowerLaw]) -> list[str]:
    import numpy as np

    pattern, law = row
    most = law.points[-1].flops
    at = np.array([most, 10 * most])
    losses, band = law.loss(at), law.band(at)
    shown = [
        f"{losses[index]:.4f}" + (f" ({band[0][index]:.4f}..{band[1][index]:.4f})" if band else "") for index in (0, 1)
    ]
    exponents = law.exponent_band
    return [
        pattern,
        f"{law.floor:.4f}",
        f"{law.exponent:.3f}" + (f" ({exponents[0]:.3f}..{exponents[1]:.3f})" if exponents else ""),
        *shown,
    ]
