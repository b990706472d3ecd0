"""The ladder in words: sizes, agreement, moves, crossings, and what a reader of them must know."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from archsearch.analysis.agreement import Move
from archsearch.analysis.ladder import Ladder, Rung, StepUp
from archsearch.analysis.power_law import EXTRAPOLATED, LawCrossing


def size_of(rung: Rung) -> str:
    """The size of a rung in words."""
    words = {
        "d_model": "d_model {}",
        "n_layers": "{} layers",
        "n_heads": "{} heads",
        "tokens": "{:,} tokens",
        "steps": "{:,} steps",
        "seeds": "{} seeds",
        "context": "costs at {:,} tokens",
    }
    given = dict(rung.sizes)
    if "tokens" in given:
        given.pop("steps", None)
    return ", ".join(words[key].format(given[key]) for key in words if key in given)


def agreement_of(step: StepUp) -> str:
    """The rank correlation of a step up in words."""
    found = step.agreement
    left = "; trainings that both rungs have are left out, as they agree with themselves" if step.again else ""
    if found.why:
        return f"no rank correlation: {found.why}{left}"
    said = "the order is kept" if found.low > 0 else "the order is turned" if found.high < 0 else "nothing is told"
    held = (
        "" if found.noise else "; the noise of seeds is not in the bounds, as a rung has one seed alone, or equal ones"
    )
    return (
        f"Kendall's tau {found.tau:+.2f} ({found.low:+.2f}..{found.high:+.2f}) of {found.count} architectures: "
        f"{said}{held}{left}"
    )


def move_of(move: Move) -> str:
    """How an architecture moved, in words."""
    if move.above == move.below:
        return "stayed"
    return ("rose" if move.above < move.below else "fell") + ("" if move.clear else ", within noise")


def crossing_of(crossing: LawCrossing, found: Ladder) -> str:
    """A predicted crossing in words."""
    better, worse = found.labels[crossing.better], found.labels[crossing.worse]
    said = (
        f"from {crossing.flops:.2g} training FLOPs{_bounds(crossing)} on {better} is predicted to be ahead of {worse}"
    )
    return said + (", an extrapolation beyond what was measured" if crossing.beyond else "")


def _bounds(crossing: LawCrossing) -> str:
    if isnan(crossing.sure):
        return " (without bounds, as no seeds tell the noise)"
    if not crossing.sure:
        return " (in no resample)"
    return f" ({crossing.low:.2g}..{crossing.high:.2g}, in {crossing.sure:.0%} of resamples)"


def remarks(found: Ladder) -> Iterator[str]:
    """What a reader of the tables must know."""
    if len(found.rungs) < found.planned:
        yield (f"{len(found.rungs)} of {found.planned} rungs are begun: `archsearch resume {found.name}` climbs on")
    for rung in found.rungs:
        if rung.without_noise:
            yield (
                f"on rung {rung.number} no candidate had two seeds that differ, so that nothing was told apart in "
                f"{', '.join(rung.without_noise)} when survivors were chosen"
            )
    if len(found.rungs) > 1:
        yield (
            "bounds hold 95%; a move is within noise where no change of order behind it is larger than the noise of "
            "seeds on both rungs"
        )
    if len(found.rungs) >= 3:
        yield (
            "three sizes are as many as a law has numbers, so that they cannot speak against it; the bands hold the "
            "noise of seeds, not that the loss may follow another law. Crossings are looked for up to "
            f"{EXTRAPOLATED:g} times the largest size; those beyond what was measured are extrapolations"
        )
