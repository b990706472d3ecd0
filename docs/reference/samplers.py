"""The tables of samplers in docs/ground_truth.md, from the files that ``archsearch bench search`` has written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reference.texts import code, table

RESULTS = Path(__file__).parents[1] / "results"
SAMPLERS, SECOND_SEEDS = RESULTS / "samplers.json", RESULTS / "second_seeds.json"


def samplers_table(file: Path = SAMPLERS) -> str:
    """One row a sampler and set of objectives, those that need fewest trials first."""
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = sorted(found["results"], key=lambda one: (one["objectives"], *_order(one)))
    columns = [
        "objectives",
        "sampler",
        "searches",
        "trials to 95%",
        "on fresh seeds",
        "share after 16",
        "after 32",
        "on fresh seeds after 32",
        "front not confirmed",
        "CPU s a search",
    ]
    said = f"Searches of {found['trials']} trials, on {', '.join(_columns(found))}."
    return f"{said}\n\n{table(columns, map(_cells, rows))}"


def _columns(found: Mapping[str, Any]) -> Iterator[str]:
    tasks = dict.fromkeys(task for task, _ in found["columns"])
    for task in tasks:
        seeds = [str(seed) for name, seed in found["columns"] if name == task]
        yield f"{task} with the seeds {', '.join(seeds)}"


def _order(one: Mapping[str, Any]) -> tuple[bool, float, float]:
    median = one["trials_to_95"]["own"]["median"]
    return median is None, median or 0.0, -one["share_at"]["own"]["16"]["median"]


def _cells(one: Mapping[str, Any]) -> list[str]:
    share = one["second_seeds"]
    return [
        code(", ".join(one["objectives"])),
        code(one["sampler"]) + (f", `second_seeds = {share:g}`" if share else ""),
        str(one["searches"]),
        *(_trials(one["trials_to_95"][values]) for values in ("own", "fresh")),
        *(f"{one['share_at']['own'][at]['median']:.3f}" for at in ("16", "32")),
        _share(one["share_at"].get("fresh", {}).get("32", {}).get("median")),
        _percent(one["unconfirmed_points"]),
        f"{one['seconds']:.1f}",
    ]


def _trials(found: Mapping[str, float | None]) -> str:
    low, median, high = ("never" if found[key] is None else f"{found[key]:g}" for key in ("low", "median", "high"))
    return f"{median} ({low} to {high})" if found["low"] is not None else median


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
