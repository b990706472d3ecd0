"""``archsearch compare``: architectures held against one of them, from a spec or from what a search has measured."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.compare_tables import print_comparison
from archsearch.cli.logs import LogFormatOption
from archsearch.cli.matching import planned_table, print_planned
from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import JsonFlag, StorageOption, check_writable, console, print_json, quiet_console, writing
from archsearch.cli.run import EXIT_CODES, AddressOption, HoursOption, UntilOption, carry_out, problem_of, tell_end
from archsearch.cli.watching import MetricsOption, Watching

if TYPE_CHECKING:
    from rich.console import Console

    from archsearch.analysis.compared import Comparison
    from archsearch.search import Problem, SearchOutcome
    from archsearch.storage import Store


CsvOption = Annotated[
    str | None, typer.Option("--csv", metavar="FILE", help="Write every architecture and metric as CSV.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what a SPEC would train, as it is matched, and train nothing.")
]


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
    dry_run: DryRunOption = False,
    csv: CsvOption = None,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    metrics: MetricsOption = None,
    log_format: LogFormatOption = None,
    json: JsonFlag = False,
) -> None:
    """Holds architectures against one of them, metric by metric, with the noise of seeds.

    A SPEC (a .toml file) is trained first, each architecture by the same recipe or with what its compare.match makes
    equal; of a NAME what is measured is shown.
    """
    from archsearch.errors import SpecError
    from archsearch.search.time_limit import TimeLimit

    if not target.endswith(".toml"):
        if go_on or dry_run or address is not None or max_hours is not None or until is not None:
            raise SpecError(
                f'"{target}" is the name of a search, which is shown: to train, give its spec, a .toml file'
            )
        _show(target, storage, baseline, csv=csv, json=json)
        return
    problem = _posed(target)
    _check_baseline(problem, baseline)
    if dry_run:
        print_planned(problem, json=json)
        return
    check_writable(csv)
    if problem.matching is not None and not json:
        quiet_console().print(planned_table(problem))
    carry_out(
        problem,
        partial(_finish, baseline=baseline, csv=csv, json=json),
        watching=Watching(json=json, log_format=log_format, metrics=metrics),
        storage=storage,
        address=address,
        going_on={} if go_on else None,
        limit=TimeLimit.read(max_hours, until),
    )


def _posed(file: str) -> Problem:
    """The comparison of a spec file; raises `SpecError` for one that compares nothing."""
    from archsearch.errors import SpecError
    from archsearch.search import SearchSpec

    spec = SearchSpec.load(file)
    if spec.compare is None:
        raise SpecError(
            f'{file} has no [compare] table: list the architectures in space.architectures with pattern = "listed", '
            "and add [compare]"
        )
    return problem_of(spec)


def _show(name: str, storage: str | None, baseline: str | None, *, csv: str | None, json: bool) -> None:
    """What is measured of a search."""
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), read_only=True) as store:
        found = _read(store, name, baseline)
    if csv is not None:
        _write(found, csv)
    if json:
        print_json(found.to_json())
    else:
        _print(found, csv, console())


def _print(found: Comparison, csv: str | None, out: Console) -> None:
    print_comparison(found, out)
    if csv is not None:
        out.print(f"written: {csv}", soft_wrap=True)


def _write(found: Comparison, path: str) -> None:
    """Raises `ArchsearchError` where it cannot be written."""
    from pathlib import Path

    from archsearch.analysis.comparison_frame import frame
    from archsearch.analysis.csv_text import csv_bytes

    with writing(path):
        Path(path).write_bytes(csv_bytes(frame(found)))


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


def _finish(
    store: Store, outcome: SearchOutcome, url: str, *, baseline: str | None, csv: str | None, json: bool
) -> None:
    from dataclasses import asdict

    from archsearch.errors import SpecError

    ended = {**asdict(outcome), "database": store.url}
    try:
        found = _read(store, outcome.name, baseline)
    except SpecError as error:  # as where it was stopped before the baseline: how it ended is told all the same
        if json:
            print_json({**ended, "architectures": [], "not_compared": str(error)}, QuietOutlet())
            return
        quiet_console().print(f"not compared: {error}", soft_wrap=True)
    else:
        if csv is not None:
            _write(found, csv)
        if json:
            print_json({**ended, **found.to_json()}, QuietOutlet())
            return
        _print(found, csv, quiet_console())
    name = shlex.quote(outcome.name)
    left = outcome.state in ("cancelled", "interrupted")
    tell_end(store, outcome, url, [f"archsearch {'resume' if left else 'compare'} {name}", f"archsearch trials {name}"])


def _read(store: Store, name: str, baseline: str | None) -> Comparison:
    from archsearch.analysis.comparison import compare as compared
    from archsearch.registry import load_registry

    return compared(store, name, load_registry(), baseline)
