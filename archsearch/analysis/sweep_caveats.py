"""What a reader of a sweep's curves must know, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from archsearch.analysis.comparison_words import of_one_rate
from archsearch.analysis.sweep import STATE, Sweep


def caveats(found: Sweep) -> Iterator[str]:
    """What a reader of the curves must know, a sentence each."""
    seeds = min((len(point.score.values) for point in found.points if not point.score.diverged), default=0)
    if seeds > 1:
        yield f"bars are standard errors over seeds, of which a point has {seeds} or more"
    elif seeds:
        yield "one seed a point: no noise is known, recipe.seeds = 2 or more shows it"
    lengths = sorted({point.seq_len for point in found.points})
    yield f"the state is counted at the task's {_listed(lengths)} tokens, and again at {found.context:,}"
    chances = sorted({round(point.chance, 4) for point in found.points})
    yield f"a guess has {_listed([f'{chance:.3g}' for chance in chances])}"
    widths = sorted({point.d_model for point in found.points})
    if len(widths) > 1:
        sized = [mixer for mixer in found.mixers if len({p.d_model for p in found.points if p.mixer == mixer}) > 1]
        yield (
            f"{_listed(sized)} {'is' if len(sized) == 1 else 'are'} sized by the width of the model, which changes "
            "parameters and FLOPs too"
        )
    unmoved = [mixer for mixer in found.mixers if _unmoved(found, mixer)]
    if unmoved:
        yield f"{_listed(unmoved)}: sizes differ in what a token reads, not in what is kept"
    for point in found.points:
        if point.score.diverged:
            seeds_told = ", ".join(map(str, point.score.diverged))
            yield f"{point.layer} at {point.pairs} pairs is left out: seed {seeds_told} diverged"
    yield from of_one_rate(point.score for point in found.points)
    ends = [point for point in found.points if point.score.rates.at_end]
    if ends:
        yield (
            f"{len(ends)} of {len(found.points)} points are best at an end of recipe.learning_rates: a wider list may "
            "move them"
        )
    for pattern, state, reason in found.waiting:
        yield f"not measured: {pattern} is {state}" + (f": {reason}" if reason else "")


def _unmoved(found: Sweep, mixer: str) -> bool:
    """Whether a mixer has several sizes and all of them keep about the same."""
    points = [point for point in found.points if point.mixer == mixer]
    kept = [point.costs[STATE] for point in points]
    return len({point.layer for point in points}) > 1 and max(kept) < 1.5 * min(kept)


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
