"""The architectures of a comparison before any is trained: what was asked, what each became, and how near it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archsearch.cli.output import table

if TYPE_CHECKING:
    from rich.console import Console

    from archsearch.analysis.comparison import Comparison
    from archsearch.search import Problem
    from archsearch.search.matching import Matched, Matching
    from archsearch.storage import Store

WORDS = {
    "train_flops": "FLOPs of one training of each task at one learning rate",
    "params": "parameters",
    "state_read": "bytes of state read for one decoded token at {context} tokens",
}


def matching_of(store: Store, name: str) -> tuple[Matching | None, str]:
    """How the architectures of a stored comparison were matched, worked out again from its spec, and why that cannot
    be told where it cannot, as where a plugin is gone; None and nothing to say of one that matches nothing."""
    from archsearch.errors import ArchsearchError
    from archsearch.registry import load_registry
    from archsearch.search import Problem, SearchSpec

    stored = store.search(name).spec
    compare = stored.get("compare")
    if not isinstance(compare, dict) or compare.get("match", "tokens") == "tokens":
        return None, ""
    try:
        return Problem.of(SearchSpec.from_dict(stored), load_registry()).matching, ""
    except ArchsearchError as error:
        return None, f'how the architectures were matched (compare.match = "{compare["match"]}") is not known: {error}'


def matching_table(found: Matching, problem: Problem | None = None) -> Any:
    """A table of a matching; with the problem that is to be trained also what keeps an architecture from it."""
    from archsearch.registry import load_registry
    from archsearch.units import format_quantity

    registry = problem.registry if problem is not None else load_registry()
    steps = found.match == "train_flops"
    columns = ["asked", "trained", *([">steps"] if steps else []), ">before", ">after", ">difference", ""]
    rows = [
        [
            row.text,
            row.arch.pattern(registry),
            *([_steps(row)] if steps else []),
            format_quantity(row.before, unit=found.unit, digits=4),
            format_quantity(row.after, unit=found.unit, digits=4),
            "baseline" if row.arch.pattern(registry) == found.baseline else f"{found.difference(row):+.2%}",
            "; ".join(problem.judge(row.arch).reasons) if problem is not None else "",
        ]
        for row in found.rows
    ]
    what = WORDS[found.match].format(context=f"{found.context:,}")
    return table(columns, rows, title=f"matched by {found.match}: {what}")


def _steps(row: Matched) -> str:
    """Optimiser steps, of several tasks each with its name."""
    if len(row.steps) == 1:
        return str(*row.steps.values())
    return ", ".join(f"{task} {steps}" for task, steps in row.steps.items())


def print_planned(problem: Problem, out: Console) -> None:
    """The architectures that would be trained, on `out`."""
    if problem.matching is not None:
        out.print(matching_table(problem.matching, problem))
        return
    rows = []
    for text, arch in zip(problem.spec.space.architectures, problem.space.all(), strict=True):
        reasons = problem.judge(arch).reasons
        base = ["baseline"] if arch == problem.baseline else []
        rows.append([text, arch.pattern(problem.registry), "; ".join([*base, *reasons])])
    out.print(table(["asked", "trained", ""], rows, title="trained by the recipe as it stands"))


def planned_json(problem: Problem) -> dict[str, Any]:
    """The same as plain data."""
    assert problem.baseline is not None
    rows = [
        {
            "asked": text,
            "pattern": arch.pattern(problem.registry),
            "digest": arch.digest,
            "costs": dict(problem.judge(arch).costs),
            "refused": problem.judge(arch).reasons,
        }
        for text, arch in zip(problem.spec.space.architectures, problem.space.all(), strict=True)
    ]
    matching = problem.matching.to_json(problem.registry) if problem.matching is not None else None
    return {
        "name": problem.spec.name,
        "baseline": problem.baseline.pattern(problem.registry),
        "architectures": rows,
        "matching": matching,
    }


def apart(found: Comparison, matching: Matching) -> Iterator[str]:
    """Rows of a comparison that a matching does not speak for, a sentence each."""
    by_text: dict[str, Matched] = {row.text: row for row in matching.rows}
    digests = {row.arch.digest for row in matching.rows}
    for row in found.rows:
        if row.digest in digests:
            continue
        if row.asked in by_text:
            yield (
                f'"{row.asked}" was trained as {row.pattern}: the plugins and tasks of today would match it otherwise, '
                "and the table of the matching is theirs"
            )
        elif matching.match != "train_flops":
            yield f"{row.pattern} is none of the list, and was not matched: it stands beside the others as it is"
