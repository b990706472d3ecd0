"""The tables of samplers in docs/ground_truth.md, from the files that ``archsearch bench search`` has written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reference.texts import code, table

RESULTS = Path(__file__).parents[1] / "results"
SAMPLERS, SECOND_SEEDS, GP = RESULTS / "samplers.json", RESULTS / "second_seeds.json", RESULTS / "gp.json"

Row = Mapping[str, Any]


def samplers_table(file: Path = SAMPLERS) -> str:
    """One row a sampler and set of objectives, those that need fewest trials first."""
    found = json.loads(file.read_text(encoding="utf-8"))
    rows = sorted(found["results"], key=lambda one: (one["objectives"], *_order(one)))
    said = f"Searches of {found['trials']} trials, on {', '.join(_columns(found))}."
    names = [name for name, _ in _COLUMNS]
    return f"{said}\n\n{table(names, ([cell(row) for _, cell in _COLUMNS] for row in rows))}"


def _columns(found: Row) -> Iterator[str]:
    tasks = dict.fromkeys(task for task, _ in found["columns"])
    for task in tasks:
        seeds = [str(seed) for name, seed in found["columns"] if name == task]
        yield f"{task} with the seeds {', '.join(seeds)}"


def _order(one: Row) -> tuple[bool, float, float]:
    median = one["trials_to_95"]["own"]["median"]
    return median is None, median or 0.0, -one["share_at"]["own"]["16"]["median"]


def _sampler(one: Row) -> str:
    share = one["second_seeds"]
    return code(one["sampler"]) + (f", `second_seeds = {share:g}`" if share else "")


def _trials(one: Row, values: str) -> str:
    """Trials to 95%; where searches were cut off, what is not found is beyond theirs."""
    found = one["trials_to_95"].get(values)
    if found is None:
        return ""
    never = "never" if one.get("go_on") else f"over {one['trials']}"
    low, median, high = (never if found[key] is None else f"{found[key]:g}" for key in ("low", "median", "high"))
    return f"{median} ({low} to {high})" if found["low"] is not None else median


def _fresh(one: Row) -> str:
    """Where one seed says too little of the others for 95%, the most that a search by it can have."""
    limit = one["limit"]["median"] if "limit" in one else None
    if limit is not None and limit < one["reached"] and one["trials_to_95"]["fresh"]["median"] is None:
        return f"at most {limit:.3f}"
    return _trials(one, "fresh")


def _ratio(one: Row, values: str) -> str:
    found = one.get("of_random", {}).get(values)
    if found is None or found["median"] is None:
        return ""
    low, median, high = found["low"], found["median"], found["high"]
    if low == high or (one["sampler"] == "random" and not one["second_seeds"]):
        return f"{median:.3g}"
    if high is None:
        return f"{median:.2f} ({low:.2f} and more)" if low else f"{median:.2f}"
    return f"{median:.2f} ({f'{low:.2f}' if low else 'up'} to {high:.2f})"  # low is 0 where random's may never come


def _share(one: Row, values: str, at: str) -> str:
    found = one["share_at"].get(values, {}).get(at, {}).get("median")
    return "" if found is None else f"{found:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("objectives", lambda one: code(", ".join(one["objectives"]))),
    ("sampler", _sampler),
    ("searches", lambda one: str(one["searches"])),
    ("trials to 95%", lambda one: _trials(one, "own")),
    ("of random's", lambda one: _ratio(one, "own")),
    ("on fresh seeds", _fresh),
    ("of one seed's limit", lambda one: _trials(one, "limit")),
    ("of random's", lambda one: _ratio(one, "limit")),
    ("share after 16", lambda one: _share(one, "own", "16")),
    ("after 32", lambda one: _share(one, "own", "32")),
    ("on fresh seeds after 32", lambda one: _share(one, "fresh", "32")),
    ("front not confirmed", lambda one: _percent(one["unconfirmed_points"])),
    ("CPU s a search", lambda one: f"{one['seconds']:.1f}"),
)
