"""Points: one row a candidate, with its objectives' values over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from archsearch.analysis.objectives import Objective, Objectives

COLUMNS = ("trial", "number", "pattern", "digest", "kind", "state", "seeds", "confirmed", "exercised", "feasible")
"""`trial` is the one that the values come from and `number` that of the candidate's first; `kind` is "reference" when
any of its trials is one, "added" when somebody brought it before the search drew it, else "search"; `seeds` are those
of `trial`; `confirmed` says that they are fresh ones."""

_ENDED = ("complete", "diverged")


def points(trials: pd.DataFrame, metrics: pd.DataFrame, objectives: Objectives, *, split: str = "test") -> pd.DataFrame:
    """One row a candidate (digest), in the order in which they were first drawn.

    `trials` and `metrics` are the store's frames. After `COLUMNS` come, for each objective, its mean over the seeds
    under its name, then ``<name>_std`` (of a sample: NaN for one seed, 0 for a cost), ``<name>_min`` and
    ``<name>_max``. Measured values are those of `split`.

    The values come from the candidate's confirm trial once that is complete or has diverged, so that a candidate
    which only luck kept finite loses its place; else from the newest of its other trials that is, which has a second
    seed where it was given one. A seed without a value makes all four NaN: a mean over the seeds that went well would
    flatter the candidate. Whether it is within the budget its newest trial says, as a budget may grow.
    """
    sources = _sources(trials)
    marked = trials.assign(reference=trials["kind"] == "reference", added=trials["kind"] == "added")
    first = marked.sort_values("number").groupby("digest", sort=False)
    named = {"number": "first", "reference": "any", "added": "first", "exercised": "all", "feasible": "last"}
    table = first.agg(named)
    frame = sources.set_index("digest").loc[table.index].drop(columns=["number", "exercised", "feasible"])
    frame = frame.join(table).reset_index()
    frame["confirmed"] = (frame["kind"] == "confirm") & (frame["state"] == "complete")
    unasked = np.where(frame["added"].astype(bool), "added", "search")
    frame["kind"] = np.where(frame["reference"].astype(bool), "reference", unasked)
    frame = frame[list(COLUMNS)]
    parts = [_summary(frame, trials, metrics, objective, split) for objective in objectives]
    return pd.concat([frame, *parts], axis=1)


def rank(kind: str, state: str) -> int:
    """How well a trial can speak for its candidate; of those with the highest rank the newest does."""
    if kind == "confirm":
        return 3 if state in _ENDED else 0
    return 2 if state in _ENDED else 1


def _sources(trials: pd.DataFrame) -> pd.DataFrame:
    """The trial of each candidate that speaks for it."""
    ranks = np.array(list(map(rank, trials["kind"], trials["state"])), dtype=np.int64)
    ordered = trials.assign(rank=ranks).sort_values(["rank", "number"])
    return ordered.drop_duplicates("digest", keep="last")


def _summary(
    frame: pd.DataFrame, trials: pd.DataFrame, metrics: pd.DataFrame, objective: Objective, split: str
) -> pd.DataFrame:
    rows = metrics[(metrics["name"] == objective.metric) & metrics["step"].isna()]
    measured, costs = rows[rows["split"] == split], rows[rows["split"] == "cost"]
    table = _cost(frame, trials, costs) if len(costs) else _measured(frame, measured)
    name = objective.name
    return table.rename(columns=lambda column: name if column == "mean" else f"{name}_{column}")


def _cost(frame: pd.DataFrame, trials: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """A cost is one figure a candidate, whichever of its trials it was stored with."""
    digests = trials.set_index("trial")["digest"]
    by_digest = costs.assign(digest=costs["trial"].map(digests)).groupby("digest")["value"].last()
    value = frame["digest"].map(by_digest).astype("float64")
    return pd.DataFrame({"mean": value, "std": value * 0.0, "min": value, "max": value})


def _measured(frame: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds of each point's trial; NaN unless each of them has a value."""
    expected = frame[["trial", "seeds"]].explode("seeds").dropna().rename(columns={"seeds": "seed"})
    found = measured.dropna(subset=["seed"]).drop_duplicates(["trial", "seed"], keep="last")[["trial", "seed", "value"]]
    keys = {"trial": "int64", "seed": "int64"}
    values = expected.astype(keys).merge(found.astype(keys), on=["trial", "seed"], how="left").groupby("trial")["value"]
    table = values.agg(["mean", "std", "min", "max"]).where(values.count() == values.size(), np.nan)
    return table.reindex(frame["trial"]).reset_index(drop=True)
