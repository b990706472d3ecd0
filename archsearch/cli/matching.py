"""The architectures of a comparison before any is trained: what was asked, what each became, and how near it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsearch.cli.output import console, print_json, table

if TYPE_CHECKING:
    from archsearch.analysis.matching import MatchingTable
    from archsearch.search import Problem


def matching_table(found: MatchingTable, reasons: Mapping[str, Sequence[str]] | None = None) -> Any:
    """A table of a matching; `reasons` say, by digest, what keeps an architecture from being trained."""
    rows = [
        [*found.cells(row).values(), *([] if reasons is None else ["; ".join(reasons.get(row.digest, ()))])]
        for row in found.rows
    ]
    heads = ["asked", "trained", *([">steps"] if found.has_steps else []), ">before", ">after", ">difference"]
    return table([*heads, *([] if reasons is None else [""])], rows, title=found.title)


def planned_table(problem: Problem) -> Any:
    """How the architectures that would be trained are matched."""
    assert problem.matching is not None
    reasons = {row.arch.digest: problem.judge(row.arch).reasons for row in problem.matching.rows}
    return matching_table(problem.matching.table(problem.registry), reasons)


def print_planned(problem: Problem, *, json: bool) -> None:
    """The architectures that would be trained."""
    if json:
        print_json(planned_json(problem))
        return
    out = console()
    if problem.matching is not None:
        out.print(planned_table(problem))
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
    matching = problem.matching.table(problem.registry).to_json() if problem.matching is not None else None
    return {
        "name": problem.spec.name,
        "baseline": problem.baseline.pattern(problem.registry),
        "architectures": rows,
        "matching": matching,
    }
