"""What docs/results.md says of distillation is what its runs are."""

from __future__ import annotations

import csv
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BUDGET = 300


def runs() -> dict[tuple[str, int], dict[str, str]]:
    with (DOCS / "results" / "distillation.csv").open() as lines:
        return {(row["way"], int(row["seed"])): row for row in csv.DictReader(lines)}


def test_runs_that_end_before_their_budget_are_told() -> None:
    """A run without its second stage is no measure of it."""
    early = {key: int(row["steps"]) for key, row in runs().items() if int(row["steps"]) < BUDGET}
    assert {way for way, _ in early} == {'teacher = "full"'}
    told = " ".join((DOCS / "results.md").read_text().split())
    (first, one), (last, other) = sorted((seed, steps) for (_, seed), steps in early.items())
    assert (
        f"seed {first} at step {one} of {BUDGET}, and seed {last} at step {other}, so that its sparse stage never ran"
        in told
    )
    assert other < BUDGET / 4 < one, "the first quarter is dense"
    accuracy = float(runs()['teacher = "full"', last]["accuracy"])
    assert f"its {accuracy:.3f} is what the dense stage alone gives" in told
