"""``archsearch ladder``: the rungs of a ladder, and how far each could be trusted for the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table

if TYPE_CHECKING:
    from archsearch.analysis.ladder import Ladder, Metric, Rung, StepUp
    from archsearch.analysis.power_law import LawCrossing, PowerLaw


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
    from archsearch.analysis.ladder import read_ladder
    from archsearch.analysis.ladder_json import ladder_json
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
    carried = "" if rung.number == 1 else str(sum(one.why != "reference" for one in rung.standings))
    late = f"{rung.late} measured after the next rung was begun" if rung.late else ""
    return [str(rung.number), rung.search, rung.state, size_of(rung), carried, late]


def size_of(rung: Rung) -> str:
    """The size of a rung in words."""
    words = {
        "d_model": "d_model {}",
        "n_layers": "{} layers",
        "n_heads": "{} heads",
        "tokens": "{:,} tokens",
        "steps": "{:,} steps",
        "seeds": "{} seeds",
        "context": "costs at {:,}",
    }
    given = dict(rung.sizes)
    if "tokens" in given:
        given.pop("steps", None)
    return ", ".join(words[key].format(given[key]) for key in words if key in given)


def _print_step(out: Any, found: Ladder, step: StepUp) -> None:
    out.print(f"\nrung {step.below} to {step.above}, {step.metric.name}: {agreement_of(step)}", soft_wrap=True)
    if step.moves:
        rows = (
            [f"{move.below} to {move.above}", _moved(move.below, move.above, clear=move.clear), found.labels[move.key]]
            for move in step.moves
        )
        out.print(table([">place", "", "pattern"], rows))


def agreement_of(step: StepUp) -> str:
    """The rank correlation of a step up in words."""
    found = step.agreement
    if found.why:
        return f"no rank correlation: {found.why}"
    said = "the order is kept" if found.low > 0 else "the order is turned" if found.high < 0 else "nothing is told"
    held = "" if found.noise else "; the noise of seeds is not in the bounds, as a rung has one seed alone"
    return (
        f"Kendall's tau {found.tau:+.2f} ({found.low:+.2f}..{found.high:+.2f}) of {found.count} architectures: "
        f"{said}{held}"
    )


def _moved(below: int, above: int, *, clear: bool) -> str:
    if below == above:
        return "stayed" if not clear else "stayed, with others around it changed"
    return ("rose" if above < below else "fell") + ("" if clear else ", within noise")


def _print_laws(out: Any, found: Ladder, metric: Metric) -> None:
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


def crossing_of(crossing: LawCrossing, found: Ladder) -> str:
    """A predicted crossing in words."""
    better, worse = found.labels[crossing.better], found.labels[crossing.worse]
    bounds = f" ({crossing.low:.2g}..{crossing.high:.2g}, in {crossing.sure:.0%} of resamples)"
    where = ", beyond what was measured" if crossing.beyond else ""
    known = bounds if crossing.sure == crossing.sure and crossing.sure > 0 else ""
    return f"from {crossing.flops:.2g} training FLOPs{known} on {better} is predicted to be ahead of {worse}{where}"


def remarks(found: Ladder) -> Iterator[str]:
    """What a reader of the tables must know."""
    if len(found.rungs) < found.planned:
        yield (f"{len(found.rungs)} of {found.planned} rungs are begun: `archsearch resume {found.name}` climbs on")
    if len(found.rungs) > 1:
        yield (
            "bounds hold 95%; a move is within noise where no change of order behind it is larger than the noise of "
            "seeds on both rungs"
        )
    if len(found.rungs) >= 3:
        yield (
            "laws pass through as many points as there are rungs: their bands hold the noise of seeds, not that the "
            "loss may follow another law; crossings are looked for up to 10 times the largest size"
        )
