"""What matters: the evidence of a search, or of a stated sample of it, and what follows from it for one objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from archsearch.analysis.axes import spans_decades, ticks
from archsearch.analysis.contrasts import Values
from archsearch.analysis.designs import Designs
from archsearch.analysis.effects import Effect, PlaceEffect, decay_effect, place_effect, share_effect
from archsearch.analysis.importance import FEWEST, importances
from archsearch.analysis.objectives import Objective, losses, objectives_of
from archsearch.analysis.points import points
from archsearch.errors import ArchsearchError
from archsearch.mixer import Resolver
from archsearch.storage import SearchRecord, Store

SAMPLE = 1000
"""Candidates that are looked at; of a larger search those of the lowest digests, which are as random as a hash."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Measured candidates: ``table`` has a row each as in `analysis.points`, ``designs`` and ``params`` go with it.

    ``complete`` is how many candidates of the search are complete; ``left_out`` those of the sample whose sparsity
    never acted, or whose depth differs from most.
    """

    table: pd.DataFrame
    designs: Designs
    params: tuple[Mapping[str, Any], ...]
    complete: int
    left_out: int

    @property
    def sentence(self) -> str:
        """What all that follows is drawn from."""
        count = len(self.table)
        kept = count + self.left_out
        from_all = "every complete candidate" if kept == self.complete else f"a sample of {kept:,} of {self.complete:,}"
        tail = f", less {self.left_out:,} whose sparsity never acted or whose depth is another" if self.left_out else ""
        return f"From {count:,} candidate{'s' if count != 1 else ''}: {from_all}{tail}."


def evidence(store: Store, search: SearchRecord, most: int = SAMPLE) -> Evidence:
    """The complete candidates of a search whose sparsity acted, at most `most`."""
    sample = store.sample(search.name, most)
    found = points(sample.trials, sample.metrics, objectives_of(search))
    depths = found["digest"].map({digest: len(arch["layers"]) for digest, arch in sample.archs.items()})
    acted = found[(found["state"] == "complete") & found["exercised"]]
    usual = depths[acted.index].mode()
    kept = acted[depths[acted.index] == (usual.iloc[0] if len(usual) else 0)].reset_index(drop=True)
    archs = [sample.archs[digest] for digest in kept["digest"]]
    return Evidence(
        table=kept,
        designs=Designs.of(archs),
        params=tuple(sample.params[digest] for digest in kept["digest"]),
        complete=sample.complete,
        left_out=len(sample.archs) - len(kept),
    )


def importance_table(found: Evidence, objective: Objective) -> pd.DataFrame:
    """`importance.COLUMNS` for one objective; empty with fewer than `FEWEST` candidates that a sampler drew."""
    return importances(found.params, losses(found.table, [objective])[:, 0].tolist())


def why_no_importance(found: Evidence, objective: Objective) -> str:
    """Why there is no table of importances."""
    drawn = sum(bool(params) for params in found.params)
    if drawn < FEWEST:
        counted = f"{drawn} candidate was" if drawn == 1 else f"{drawn} candidates were"
        return (
            f"{counted} drawn by the sampler and measured; below {FEWEST} the best quarter is too small to say which "
            "choice made it."
        )
    return f"All candidates have the same {objective.name}, or too few have one: no choice can be told to matter."


def values_of(found: Evidence, objective: Objective) -> Values:
    """The objective's mean over seeds, by candidate: `[n]`, NaN where there is none."""
    return found.table[objective.name].to_numpy(dtype=np.float64, na_value=np.nan)


def families(found: Evidence, resolver: Resolver) -> dict[str, str]:
    """The family of each mixer that occurs; "other" for one whose plugin is missing."""
    return {mixer: _family(mixer, resolver) for mixer in sorted({str(one["mixer"]) for one in found.designs.layers})}


def _family(mixer: str, resolver: Resolver) -> str:
    try:
        return resolver.resolve(mixer).plugin.family
    except ArchsearchError:
        return "other"


def share_of(found: Evidence, objective: Objective, kinds: Mapping[str, str], family: str) -> Effect:
    """The effect of how many layers belong to `family`."""
    return share_effect(found.designs, values_of(found, objective), lambda mixer: kinds[mixer] == family)


def decay_of(found: Evidence, objective: Objective) -> Effect:
    """The effect of the granularity of decay."""
    return decay_effect(found.designs, values_of(found, objective))


def place_of(found: Evidence, objective: Objective, kinds: Mapping[str, str], family: str) -> PlaceEffect:
    """The effect of where the layers of `family` sit."""
    return place_effect(found.designs, values_of(found, objective), lambda mixer: kinds[mixer] == family)


METHODS = {
    "pairs": "pair{s} of candidates that differ in nothing else",
    "fit": "candidate{s}, by a linear fit that holds the numbers of all other kinds of layers equal",
}


def changes_table(effect: Effect, objective: Objective, words: str) -> pd.DataFrame:
    """Each change in words; `words` is filled with what stood there before and after."""
    rows = [
        (
            words.format(before=row["before"], after=row["after"]),
            signed(row["mean"], objective),
            f"± {unsigned(row['error'], objective)}" if row["error"] == row["error"] else "unknown: one pair",
            verdict(row["mean"], row["error"], row["clear"], objective),
            f"{row['count']:,} {METHODS[row['method']].format(s='' if row['count'] == 1 else 's')}",
        )
        for row in effect.changes.to_dict("records")
    ]
    columns = ["one layer changed", f"mean change of {objective.name}", "standard error", "so", "from"]
    return pd.DataFrame(rows, columns=columns)


def moves_table(effect: PlaceEffect, objective: Objective) -> pd.DataFrame:
    """Each move of a layer to a later place in words, layers counted from 1."""
    rows = [
        (
            f"{row['low'] + 1} to {row['high'] + 1}",
            signed(row["mean"], objective),
            f"± {unsigned(row['error'], objective)}" if row["error"] == row["error"] else "unknown: one pair",
            row["pairs"],
        )
        for row in effect.moves.to_dict("records")
    ]
    columns = ["moved from layer", f"mean change of {objective.name}", "standard error", "pairs"]
    return pd.DataFrame(rows, columns=columns)


def signed(value: float, objective: Objective) -> str:
    """A change with its sign and unit."""
    return ("+" if value >= 0 else "−") + unsigned(abs(value), objective)


def unsigned(value: float, objective: Objective) -> str:
    """A size of a change with its unit."""
    return objective.show(value) if objective.is_cost or value >= 0.001 or not value else f"{value:.1g}"


def verdict(mean: float, error: float, clear: bool, objective: Objective) -> str:
    """Whether a change is for the better, where it is told from zero."""
    if error != error:
        return "one pair tells nothing"
    if not clear:
        return "not told from zero"
    return "better" if (mean > 0) == (objective.direction == "maximize") else "worse"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One axis of parallel coordinates: values `[n]` as they are placed, and what is written where."""

    label: str
    values: Sequence[float]
    marks: Mapping[float, str]


def dimensions(found: Evidence, objectives: Sequence[Objective], kinds: Mapping[str, str]) -> list[Dimension]:
    """How many layers each family has, then the objectives; of candidates with a value for every objective."""
    names = [objective.name for objective in objectives]
    whole = np.isfinite(found.table[names].to_numpy(dtype=np.float64, na_value=np.nan)).all(axis=1)
    axes = []
    for family in dict.fromkeys(kinds.values()):
        inside = np.array([kinds[str(layer["mixer"])] == family for layer in found.designs.layers], dtype=bool)
        counts = inside[found.designs.codes].sum(axis=1)[whole].tolist()
        marks = {float(count): str(count) for count in sorted(set(counts))}
        axes.append(Dimension(label=f"{family} layers", values=counts, marks=marks))
    table = found.table[whole]
    return axes + [_axis(objective, table[objective.name].tolist()) for objective in objectives if len(table)]


def _axis(objective: Objective, values: list[float]) -> Dimension:
    log = objective.is_cost and spans_decades(values)
    marked = ticks(values, unit=objective.unit, log=log)
    if not log:
        return Dimension(label=objective.name, values=values, marks=marked)
    return Dimension(
        label=objective.name,
        values=np.log10(values).tolist(),
        marks={float(np.log10(value)): text for value, text in marked.items()},
    )
