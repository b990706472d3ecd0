"""``archsearch compare``: architectures held against one of them, from a spec or from what a search has measured."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.compare_tables import print_comparison
from archsearch.cli.logs import LogFormatOption
from archsearch.cli.matching import matching_of, matching_table, planned_json, print_planned
from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, quiet_console
from archsearch.cli.run import EXIT_CODES, AddressOption, HoursOption, UntilOption, carry_out, problem_of, tell_end
from archsearch.cli.watching import MetricsOption, Watching

if TYPE_CHECKING:
    from archsearch.analysis.comparison import Comparison
    from archsearch.search import Problem, SearchOutcome
    from archsearch.search.matching import Matching
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what a SPEC would train, as it is matched, and train nothing.")
    ] = False,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    metrics: MetricsOption = None,
    log_format: LogFormatOption = None,
    json: JsonFlag = False,
) -> None:
    """Holds architectures against one of them, task by task, with the noise of seeds.

    A SPEC (a .toml file) is trained first, each architecture by the same recipe or with what its compare.match makes
    equal; of a NAME what is measured is shown.
    """
    from archsearch.errors import SpecError
    from archsearch.search import SearchSpec
    from archsearch.search.time_limit import TimeLimit
    from archsearch.storage import Store, storage_url

    if not target.endswith(".toml"):
        if go_on or dry_run or address is not None or max_hours is not None or until is not None:
            raise SpecError(
                f'"{target}" is the name of a search, which is shown: to train, give its spec, a .toml file'
            )
        with Store.open(storage_url(storage), read_only=True) as store:
            found = _read(store, target, baseline)
            matching, untold = matching_of(store, target)
        if json:
            print_json(_as_json(found, matching))
        else:
            print_comparison(found, console(), matching, untold)
        return
    spec = SearchSpec.load(target)
    if spec.compare is None:
        raise SpecError(
            f'{target} has no [compare] table: list the architectures in space.architectures with pattern = "listed", '
            "and add [compare]"
        )
    problem = problem_of(spec)
    _check_baseline(problem, baseline)
    if dry_run:
        if json:
            print_json(planned_json(problem))
        else:
            print_planned(problem, console())
        return
    if problem.matching is not None and not json:
        quiet_console().print(matching_table(problem.matching, problem))
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
    if baseline is None or baseline in problem.spec.space.architectures:
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
            data = _as_json(found, matching_of(store, outcome.name)[0])
            print_json({**asdict(outcome), "database": store.url, **data}, QuietOutlet())
            return
        print_comparison(found, quiet_console(), *matching_of(store, outcome.name))
    name = shlex.quote(outcome.name)
    left = outcome.state in ("cancelled", "interrupted")
    tell_end(store, outcome, url, [f"archsearch {'resume' if left else 'compare'} {name}", f"archsearch trials {name}"])


def _read(store: Store, name: str, baseline: str | None) -> Comparison:
    from archsearch.analysis.comparison import compare as compared
    from archsearch.registry import load_registry

    return compared(store, name, load_registry(), baseline)


def _as_json(found: Comparison, matching: Matching | None) -> dict[str, Any]:
    from archsearch.registry import load_registry

    return {**found.to_json(), "matching": matching.to_json(load_registry()) if matching is not None else None}
