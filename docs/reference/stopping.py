"""The table of early stopping in docs/spec.md, from the files that ``archsearch bench stopping`` has written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from archsearch.search.tables.search import EarlyStopTable
from reference.texts import table

RESULTS = Path(__file__).parents[1] / "results"
FILES = (RESULTS / "early_stopping_3_seeds.json", RESULTS / "early_stopping_1_seed.json")
SAMPLERS = ("random", "nsga2", "ehvi")
STEADY = ("random", "ehvi")
"""Of an evolution a rule changes the draws, and the volume either way."""

Rule = tuple[int, float]
"""How many others, and their noise."""


def stopping_table() -> str:
    """One row a rule, those of every noise in one where they do the same; the rule that `true` stands for in bold."""
    columns = [
        "seeds",
        "`others`",
        "`noise`",
        f"steps saved: {_each(SAMPLERS)}",
        f"volume lost: {_each(STEADY)}",
        f"front points stopped: {_each(SAMPLERS)}",
        "of the true front",
    ]
    return table(columns, [cells for file in FILES for cells in _rows(json.loads(file.read_text(encoding="utf-8")))])


def _rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    by_rule: dict[Rule, dict[str, Mapping[str, Any]]] = {}
    for row in found["rows"]:
        by_rule.setdefault((row["table"]["others"], row["table"]["noise"]), {})[row["sampler"]] = row
    usual = EarlyStopTable()
    for others, rules in groupby(sorted(by_rule), key=lambda rule: rule[0]):
        told = {noise: _figures(by_rule[others, noise]) for _, noise in rules}
        same = len({tuple(figures) for figures in told.values()}) == 1
        for noise, figures in list(told.items())[: 1 if same else None]:
            bold = others == usual.others and (same or noise == usual.noise)
            texts = [str(others), "any" if same else f"{noise:g}"]
            texts = [f"**{text}**" if bold and text != "any" else text for text in texts]
            yield [str(found["seeds"]), *texts, *figures]


def _figures(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    kept = [rows[sampler] for sampler in SAMPLERS]
    lost = [rows[sampler]["volume_without"] - rows[sampler]["volume"] for sampler in STEADY]
    return [
        _each(f"{row['saved']:.0%}" for row in kept),
        _each(f"{abs(volume) if abs(volume) < 5e-4 else volume:.1%}" for volume in lost),
        _each(f"{row['wrongly']:.2f}" for row in kept),
        _each(f"{row['wrongly_true']:.2f}" for row in kept),
    ]


def _each(texts: Iterable[str]) -> str:
    return ", ".join(texts)
