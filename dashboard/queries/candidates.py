"""Candidates and trials as tables: the front, the groups beside it, and values with their spread and their unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from archsearch.analysis.answer import Answer, marks
from archsearch.analysis.objectives import Objective

from ..unexercised import read_unexercised, unexercised_layers

SHOWN = ("dominated", "references", "pruned", "infeasible", "not exercised", "failed", "superseded")
"""Groups of candidates beside the front, as the switch of the front's page names them."""


_WITH_A_FRONT = ("dominated", "references")


_FAILED = ("failed", "diverged", "preempted", "cancelled")


def groups(answer: Answer) -> dict[str, pd.DataFrame]:
    """The candidates beside the front, by `SHOWN`; each is in one group.

    Who lacks a value, as one seed of it gave no finite number, has failed.
    """
    points = answer.points
    search = points[points["kind"] != "reference"]
    valued = answer.dominated[[item.name for item in answer.objectives]].notna().all(axis=1)
    return {
        "dominated": answer.dominated[valued],
        "references": answer.references,
        "pruned": search[search["state"] == "pruned"],
        "infeasible": search[search["state"] == "infeasible"],
        "not exercised": answer.not_exercised,
        "failed": pd.concat([search[search["state"].isin(_FAILED)], answer.dominated[~valued]]),
        "superseded": points[points["state"] == "superseded"],
    }


def shown_first(answer: Answer) -> tuple[str, ...]:
    """The groups that are shown until a viewer chooses: where there is no front, all that there is."""
    return _WITH_A_FRONT if len(answer.front) else SHOWN


def candidates_table(rows: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Candidates as people read them: numbered, each value with its unit, its spread over seeds and its marks."""
    listed: Sequence[Mapping[Any, Any]] = rows.to_dict("records")
    table = {
        "#": range(1, len(listed) + 1),
        "trial": [int(row["trial"]) for row in listed],
        "pattern": [str(row["pattern"]) for row in listed],
        **{objective.name: [value_text(objective, row) for row in listed] for objective in objectives},
        "seeds": [len(row["seeds"]) for row in listed],
        "remark": [marks(row) for row in listed],
    }
    return pd.DataFrame(table)


def value_text(objective: Objective, row: Mapping[Any, Any]) -> str:
    """A value, and in brackets the least and the greatest over seeds where they differ."""
    value, low, high = (float(row[f"{objective.name}{part}"]) for part in ("", "_min", "_max"))
    return objective.show(value) + (f" ({objective.show(low)} to {objective.show(high)})" if low < high else "")


def trial_table(rows: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """A page of trials as people read it; values are those of the validation split, or costs."""
    table = {
        "trial": rows["trial"],
        "no.": rows["number"],
        "kind": rows["kind"],
        "state": rows["state"],
        "pattern": rows["pattern"],
        **{item.name: [item.show(float(value)) for value in rows[item.metric]] for item in objectives},
        "remark": [
            reason or "; ".join(f"not exercised: {text}" for text in unexercised_layers(read_unexercised(layers)))
            for reason, layers in zip(rows["reason"], rows["unexercised"], strict=True)
        ],
    }
    return pd.DataFrame(table)
