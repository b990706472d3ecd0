"""The tables of ``archsearch bench search``: how many trials each sampler needs, and what its answers are worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsearch.cli.output import table
from archsearch.search.truth.medians import BOUNDED

Found = Mapping[str, Any]
"""What the searches of one case and sampler came to, as `summary` and `with_ratios` say it."""


def line(found: Found) -> str:
    """What is told as soon as the searches are through."""
    said = f"{', '.join(found['objectives'])}: {name(found)}: 95% after {trials(found, 'own')} trials"
    if math.isnan(found["limit"]["median"]):
        return said
    return f"{said}, on fresh seeds {fresh(found)}, of what one seed tells of those {trials(found, 'limit')}"


def tables(found: Sequence[Found], names: Sequence[str], count: int, seeds: int) -> Iterator[Any]:
    """Both tables of one case."""
    said = ", ".join(names)
    columns = ["sampler", ">own seed", ">of random's", ">fresh seeds", ">of one seed's limit", ">of random's"]
    needed = f"{said}: trials to 95%"
    yield table(columns, map(_needed, found), title=needed)
    columns = ["sampler", ">at 16", ">at 32", ">fresh seeds at 32", ">front unconfirmed", ">best unconfirmed", ">CPU s"]
    worth = f"{said}: {seeds} searches of {count} trials"
    yield table(columns, map(_worth, found), title=worth)


def name(found: Found) -> str:
    """The sampler, with its second seeds."""
    share = found["second_seeds"]
    return f"{found['sampler']}, second_seeds = {share:g}" if share else str(found["sampler"])


def trials(found: Found, values: str) -> str:
    """The median of trials to 95% with its interval."""
    middle = found["trials_to_95"][values]
    if math.isnan(middle["median"]):
        return "-"
    never = "never" if found["go_on"] else f">{found['trials']}"
    low, median, high = (_count(middle[end], never) for end in ("low", "median", "high"))
    if found["searches"] < BOUNDED:
        low, high = "?", "?"
    return f"{median} ({low}..{high})"


def fresh(found: Found) -> str:
    """Trials to 95% by fresh seeds; where one seed says too little of them for that, the share that it can have."""
    if math.isinf(found["trials_to_95"]["fresh"]["median"]) and found["limit"]["median"] < found["reached"]:
        return f"at most {found['limit']['median']:.3f}"
    return trials(found, "fresh")


def _needed(found: Found) -> list[str]:
    return [
        name(found),
        trials(found, "own"),
        _ratio(found, "own"),
        fresh(found),
        trials(found, "limit"),
        _ratio(found, "limit"),
    ]


def _worth(found: Found) -> list[str]:
    return [
        name(found),
        *(_share(found, "own", at) for at in ("16", "32")),
        _share(found, "fresh", "32"),
        _percent(found["unconfirmed_points"]),
        _percent(found["unconfirmed_best"]),
        f"{found['seconds']:.1f}",
    ]


def _count(value: float, never: str) -> str:
    return f"{value:g}" if math.isfinite(value) else never if value > 0 else "?"


def _ratio(found: Found, values: str) -> str:
    held = found["of_random"].get(values)
    if held is None or math.isnan(held["median"]):
        return "-"
    high = f"{held['high']:.2f}" if math.isfinite(held["high"]) else "?"
    return f"{held['median']:.2f} ({held['low']:.2f}..{high})"


def _share(found: Found, values: str, at: str) -> str:
    middle = found["share_at"].get(values, {}).get(at)
    return "-" if middle is None or math.isnan(middle["median"]) else f"{middle['median']:.3f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"
