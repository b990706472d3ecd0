"""``archsearch compare``: architectures held against one of them, from a spec or from what a search has measured."""

from __future__ import annotations

import shlex
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.logs import LogFormatOption
from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, quiet_console, table
from archsearch.cli.run import EXIT_CODES, AddressOption, HoursOption, UntilOption, carry_out, problem_of, tell_end
from archsearch.cli.watching import MetricsOption, Watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from archsearch.analysis.comparison import Compared, Comparison, Score
    from archsearch.analysis.speed import Timed
    from archsearch.search import Problem, SearchOutcome
    from archsearch.storage import Store


_TIMED = {"tokens_to_half": ">to half", "tokens_to_95": ">to 95%"}
"""Columns by metric of speed."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("compare", epilog=EXIT_CODES)(compare)


def compare(
    target: Annotated[
        str, typer.Argument(metavar="SPEC|NAME", help="Spec file with a [compare] table, or the name of a search.")
    ],
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="PATTERN", help="Held against this one of them.")
    ] = None,
    storage: StorageOption = None,
    address: AddressOption = None,
    go_on: Annotated[
        bool, typer.Option("--resume", help="Go on with the comparison of that name where the database has one.")
    ] = False,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    metrics: MetricsOption = None,
    log_format: LogFormatOption = None,
    json: JsonFlag = False,
) -> None:
    """Holds architectures against one of them, task by task, with the noise of seeds.

    A SPEC (a .toml file) is trained first, each architecture by the same recipe; of a NAME what is measured is shown.
    """
    from archsearch.errors import SpecError
    from archsearch.search import SearchSpec
    from archsearch.search.time_limit import TimeLimit
    from archsearch.storage import Store, storage_url

    if not target.endswith(".toml"):
        if go_on or address is not None or max_hours is not None or until is not None:
            raise SpecError(
                f'"{target}" is the name of a search, which is shown: to train, give its spec, a .toml file'
            )
        with Store.open(storage_url(storage), read_only=True) as store:
            found = _read(store, target, baseline)
        if json:
            print_json(found.to_json())
        else:
            print_comparison(found, console())
        return
    spec = SearchSpec.load(target)
    if spec.compare is None:
        raise SpecError(
            f'{target} has no [compare] table: list the architectures in space.architectures with pattern = "listed", '
            "and add [compare]"
        )
    problem = problem_of(spec)
    _check_baseline(problem, baseline)
    carry_out(
        problem,
        partial(_finish, baseline=baseline, json=json),
        watching=Watching(json=json, log_format=log_format, metrics=metrics),
        storage=storage,
        address=address,
        going_on={} if go_on else None,
        limit=TimeLimit.read(max_hours, until),
    )


def _check_baseline(problem: Problem, baseline: str | None) -> None:
    """Refuses one that none of the trained architectures will be, before they are trained."""
    if baseline is None:
        return
    from archsearch.errors import SpecError
    from archsearch.search.references import trained_as

    try:
        trained_as(baseline, (*problem.space.all(), *problem.references), problem.space, problem.registry)
    except SpecError as error:
        raise SpecError(f"--baseline: {error}") from None


def _finish(store: Store, outcome: SearchOutcome, url: str, *, baseline: str | None, json: bool) -> None:
    from dataclasses import asdict

    from archsearch.errors import SpecError

    try:
        found = _read(store, outcome.name, baseline)
    except SpecError as error:  # as where it was stopped before the baseline: how it ended is told all the same
        if json:
            data = {**asdict(outcome), "database": store.url, "architectures": [], "not_compared": str(error)}
            print_json(data, QuietOutlet())
            return
        quiet_console().print(f"not compared: {error}", soft_wrap=True)
    else:
        if json:
            print_json({**asdict(outcome), "database": store.url, **found.to_json()}, QuietOutlet())
            return
        print_comparison(found, quiet_console())
    name = shlex.quote(outcome.name)
    left = outcome.state in ("cancelled", "interrupted")
    tell_end(store, outcome, url, [f"archsearch {'resume' if left else 'compare'} {name}", f"archsearch trials {name}"])


def _read(store: Store, name: str, baseline: str | None) -> Comparison:
    from archsearch.analysis.comparison import compare as compared
    from archsearch.registry import load_registry

    return compared(store, name, load_registry(), baseline)


def _table(found: Comparison, task: str) -> Any:
    first = next(row.scores[task] for row in found.rows if task in row.scores)
    sign = -1.0 if first.direction == "maximize" else 1.0
    rows = [row for row in found.rows if task in row.scores]
    rows.sort(key=lambda row: (not isfinite(row.scores[task].mean), sign * row.scores[task].mean))
    costs = list(dict.fromkeys(name for row in rows for name in row.costs))
    timed = any(task in row.speeds for row in rows)
    columns = ["pattern", f">{first.metric}", ">seeds", ">difference", "", *(_TIMED.values() if timed else ())]
    columns += [">rate", *(f">{cost}" for cost in costs), ""]
    return table(columns, (_cells(row, task, costs, found, timed) for row in rows), title=f"{task}, on test")


def _cells(row: Compared, task: str, costs: list[str], found: Comparison, timed: bool) -> list[str]:
    from archsearch.costs import CostTerm
    from archsearch.units import format_quantity

    score = row.scores[task]
    shown = [
        format_quantity(row.costs[name], unit=CostTerm.parse(name, context=1).unit) if name in row.costs else ""
        for name in costs
    ]
    rate = "" if score.rates.best is None else f"{score.rates.best:g}"
    return [
        row.pattern,
        _plus_minus(score),
        str(len(score.values)),
        *(("baseline", "") if row is found.baseline else _difference(score)),
        *([_soon(row.speeds.get(task, {}).get(metric)) for metric in _TIMED] if timed else []),
        rate,
        *shown,
        "; ".join(_notes(score)),
    ]


def _soon(found: Timed | None) -> str:
    """How soon a target was reached, in tokens: of how many seeds where not of all."""
    from archsearch.analysis.objectives import format_tokens

    if found is None:
        return ""
    if found.tokens is None:
        return format_tokens(2 * found.budget, found.budget)
    text = format_tokens(found.tokens, found.budget)
    return text if found.arrived == found.seeds else f"{text} ({found.arrived} of {found.seeds} seeds)"


def _plus_minus(score: Score) -> str:
    if not isfinite(score.mean):
        return "none"
    return f"{score.mean:.3f}" + (f" ± {score.error:.3f}" if isfinite(score.error) else "")


def _difference(score: Score) -> tuple[str, str]:
    """The difference with its bounds, and what it says."""
    if score.against is None or not isfinite(score.against.mean):
        return "", ""
    bounds = f" ({score.against.low:+.3f}..{score.against.high:+.3f})" if isfinite(score.against.low) else ""
    said = ("better" if score.better else "worse") if score.clear else "within noise"
    return f"{score.against.mean:+.3f}{bounds}", said if isfinite(score.p) else "nothing tells"


def _notes(score: Score) -> Iterator[str]:
    if score.diverged:
        yield f"seed {', '.join(map(str, score.diverged))} diverged"
    lacking = [seed for seed, value in score.values.items() if not isfinite(value)]
    if lacking:
        yield f"seed {', '.join(map(str, lacking))} has no finite {score.metric}"
    if score.rates.fragile:
        yield "fragile: good at one rate only"
    if score.rates.at_end:
        yield f"best at the {score.rates.at_end} rate"


def remarks(found: Comparison) -> Iterator[str]:
    """What a reader of the tables must know, a sentence each."""
    scores = [score for row in found.rows for score in row.scores.values()]
    stopped = [row for row in found.rows if any(score.diverged for score in row.scores.values())]
    fewest = min(
        (len(score.values) for row in found.rows if row not in stopped for score in row.scores.values()), default=3
    )
    yield (
        f"differences are from {found.baseline.pattern}, of the same seed, with 95% bounds; better and worse are those "
        f"that chance alone gives in any of {found.comparisons} comparisons less often than once in 20"
    )
    if fewest < 3:
        yield f"{fewest} seed{'s' if fewest != 1 else ''} tell little: recipe.seeds = 3 or more shows the noise"
    for row in stopped:
        where = next(task for task, score in row.scores.items() if score.diverged)
        yield f"{row.pattern} was given up where a seed diverged on {where}: it may lack later runs on every task"
    if any(row.speeds for row in found.rows):
        yield (
            "to half and to 95% are the tokens until validation first has so much of what full attention gains in all, "
            "with the same seed; between two looks the way is a straight line"
        )
    ends = {score.rates.at_end for score in scores} - {""}
    if ends:
        yield (
            f"some are best at the {' or '.join(sorted(ends))} of the learning rates: a wider "
            "recipe.learning_rates may move them"
        )
    for pattern, state, reason in found.waiting:
        yield f"not compared: {pattern} is {state}" + (f": {reason}" if reason else "")


def print_comparison(found: Comparison, out: Console) -> None:
    """The tables and remarks on `out`."""
    for task in found.tasks:
        out.print(_table(found, task))
    for line in remarks(found):
        out.print(line, soft_wrap=True)
