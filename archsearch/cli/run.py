"""``archsearch run`` and ``archsearch resume``: a search from its spec to its front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.climbing import Climb, LadderYesOption
from archsearch.cli.logs import LogFormatOption
from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import JsonFlag, StorageOption, print_json, prints_told, quiet_console
from archsearch.cli.watching import MetricsOption, Watching

if TYPE_CHECKING:
    from archsearch.search import Problem, SearchOutcome, SearchSpec
    from archsearch.search.time_limit import TimeLimit
    from archsearch.storage import Store

EXIT_CODES = (
    "Exit codes: 0 done; 1 any other error; 2 a spec, option or name that cannot be used; 3 nothing in the space meets "
    "the budget; 4 the database; 5 the Ray cluster or its workers, or trials that lost theirs; 6 every training "
    "diverged; 7 the time was up (--max-hours, --until); 130 interrupted."
)
_FAILED, _LOST, _DIVERGED, _TIME_UP, _CANCELLED = 1, 5, 6, 7, 130
Search = Callable[..., "SearchOutcome"]
"""`run_search`, or `resume_search` with what it is allowed."""

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address", help='Ray cluster to use ("auto": the one that this runs on); by default one of its own.'
    ),
]

TrialsOption = Annotated[
    int | None, typer.Option("--trials", metavar="N", min=1, help="Trials to train, instead of the spec's.")
]
WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Watch a driver that seems to be alive, up to a minute, and go on once it is dead."),
]
RetrainOption = Annotated[
    bool,
    typer.Option("--retrain", help="Set results aside whose mixers, tasks or core have changed, and train them again."),
]

GrowOption = Annotated[
    bool,
    typer.Option(
        "--grow",
        help="With --resume: take more trials and draws, another concurrency and a wider budget from SPEC.",
    ),
]
HoursOption = Annotated[
    float | None,
    typer.Option("--max-hours", metavar="H", help="End in order after so many hours; resume goes on."),
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="End in order at this moment, as 2026-05-31T18:00 (local time)."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("run", epilog=EXIT_CODES)(run)
    app.command("resume", epilog=EXIT_CODES)(resume)


def run(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Spec file of the search (TOML).")],
    storage: StorageOption = None,
    trials: TrialsOption = None,
    address: AddressOption = None,
    go_on: Annotated[
        bool, typer.Option("--resume", help="Go on with the search of that name where the database has one.")
    ] = False,
    grow: GrowOption = False,
    wait: WaitOption = False,
    retrain: RetrainOption = False,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    yes: LadderYesOption = False,
    metrics: MetricsOption = None,
    log_format: LogFormatOption = None,
    json: JsonFlag = False,
) -> None:
    """Runs a search from its spec to its front.

    Trains candidates, measures the front again on fresh seeds, and shows it. With [[rung]] tables the survivors are
    trained anew, size by size.
    """
    from archsearch.errors import SpecError
    from archsearch.search import SearchSpec
    from archsearch.search.time_limit import TimeLimit

    if not go_on and (grow or wait or retrain):
        raise SpecError("--grow, --wait and --retrain are for a search that goes on: give --resume too")
    limit = TimeLimit.read(max_hours, until)
    carry_out(
        problem_of(SearchSpec.load(spec), trials=trials),
        partial(_finish, json=json),
        watching=Watching(json=json, log_format=log_format, metrics=metrics),
        storage=storage,
        address=address,
        going_on={"allowed": _growing(grow=grow, trials=trials), "wait": wait, "retrain": retrain} if go_on else None,
        limit=limit,
        yes=yes,
    )


def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the search, as `archsearch searches` lists it.")],
    storage: StorageOption = None,
    trials: TrialsOption = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", min=1, help="Trials at a time, instead of the spec's.")
    ] = None,
    address: AddressOption = None,
    wait: WaitOption = False,
    retrain: RetrainOption = False,
    max_hours: HoursOption = None,
    until: UntilOption = None,
    metrics: MetricsOption = None,
    log_format: LogFormatOption = None,
    json: JsonFlag = False,
) -> None:
    """Goes on with a search that was stopped or killed.

    What is measured is not trained again, unless its source has changed and --retrain says so.
    """
    from archsearch.cli.climbing import first_rung
    from archsearch.search.stored import as_begun
    from archsearch.search.time_limit import TimeLimit
    from archsearch.storage import Store, storage_url
    from archsearch.storage.url import refuse_passing_folder

    limit = TimeLimit.read(max_hours, until).begun()
    url = storage_url(storage)
    refuse_passing_folder(url)
    with Store.open(url, create=False) as store:
        spec = first_rung(store, name, trials=trials)
        with as_begun(name):
            problem = problem_of(spec, trials=trials, concurrency=concurrency)
        going_on = {
            "allowed": _growing(trials=trials, concurrency=concurrency),
            "wait": wait,
            "retrain": retrain,
        }
        watching = Watching(json=json, log_format=log_format, metrics=metrics)
        climb = Climb(problem=problem, store=store, going_on=going_on)
        outcome = climb.run(_driven(store, address, watching, limit))
        _finish(store, outcome, url, json=json)
    _leave(outcome)


def carry_out(
    problem: Problem,
    finish: Callable[[Store, SearchOutcome, str], None],
    *,
    watching: Watching,
    storage: str | None = None,
    address: str | None = None,
    going_on: Mapping[str, Any] | None = None,
    limit: TimeLimit | None = None,
    yes: bool = False,
) -> None:
    """Runs the search of a problem under the eyes of the user, then `finish`, and exits with the code of its end.

    With `going_on`, the arguments of `resume_search`, a search of that name goes on where the database has one. The
    rungs of a ladder follow, whose cost is told before; beyond its limits somebody is asked, unless `yes` says so.
    """
    from archsearch.storage import Store, storage_url
    from archsearch.storage.url import refuse_passing_folder

    url = storage_url(storage, spec=problem.spec.storage.url)
    refuse_passing_folder(url)
    with Store.open(url) as store:
        climb = Climb(problem=problem, store=store, going_on=going_on)
        climb.weigh(yes=yes, json=watching.json)
        outcome = climb.run(_driven(store, address, watching, limit and limit.begun()))
        finish(store, outcome, url)
    _leave(outcome)


def _driven(
    store: Store, address: str | None, watching: Watching, limit: TimeLimit | None
) -> Callable[[Search, Problem], SearchOutcome]:
    """How each search of a ladder is driven: under the eyes of the user, within the time of all of them."""
    return lambda search, problem: _watched(partial(search, limit=limit), problem, store, address, watching)


def problem_of(spec: SearchSpec, **given: int | None) -> Problem:
    """What the spec poses, with keys of ``[search]`` that were given on the command line; nothing is opened yet."""
    from archsearch.registry import load_registry
    from archsearch.search import Problem

    return Problem.of(_with(spec, **given), load_registry())


def _watched(search: Search, problem: Problem, store: Store, address: str | None, watching: Watching) -> SearchOutcome:
    """Runs a search to its end under the eyes of the user."""
    with watching.view(store, problem.spec.name) as view, prints_told():
        return search(problem, store=store, view=view, address=address)


def _growing(*, grow: bool = False, trials: int | None = None, concurrency: int | None = None) -> list[str]:
    """The keys that may be others than the stored search has: all that can grow, or those whose options were given."""
    from archsearch.storage.spec_keys import GROWING

    if grow:
        return list(GROWING)
    given = {"search.trials": trials, "search.concurrency": concurrency}
    return [key for key, value in given.items() if value is not None]


def _with(spec: SearchSpec, **given: int | None) -> SearchSpec:
    """The spec with keys of ``[search]`` that were given on the command line, checked as the file's are."""
    from pydantic import ValidationError

    from archsearch.arch import explain
    from archsearch.errors import SpecError
    from archsearch.search.tables.search import SearchTable

    table = spec.search.model_dump() | {key: value for key, value in given.items() if value is not None}
    try:
        return spec.model_copy(update={"search": SearchTable.model_validate(table)})
    except ValidationError as error:
        raise SpecError(explain(error, SearchTable, "search")) from None


def _finish(store: Store, outcome: SearchOutcome, url: str, *, json: bool) -> None:
    """The front, where it is kept, and what to try next."""
    from archsearch.analysis.answer import read_answer
    from archsearch.analysis.axes import choose_axes
    from archsearch.cli.climbing import next_of_ladder
    from archsearch.cli.pareto import show_answer

    answer = read_answer(store, outcome.name)
    if json:
        data = {**_as_json(outcome), "database": store.url, "front": answer.to_json()}
        print_json(data, QuietOutlet())
    else:
        show_answer(answer, *choose_axes(answer, None, None), quiet_console())
        best = int(answer.front["trial"].iloc[-1]) if len(answer.front) else None
        tell_end(store, outcome, url, [*_next(outcome, best), *next_of_ladder(answer.search)])


def tell_end(store: Store, outcome: SearchOutcome, url: str, commands: Sequence[str]) -> None:
    """How a search ended, where it is kept, and commands to try next."""
    out = quiet_console()
    out.print(f"\n{outcome.state} after {outcome.seconds:.0f} s" + (f": {outcome.reason}" if outcome.reason else ""))
    out.print(f"database: {store.url}", soft_wrap=True)
    where, flag = _find_again(store.url, url)
    out.print(f"next{where}:\n  " + "\n  ".join(f"{command}{flag}" for command in commands), soft_wrap=True)


def _leave(outcome: SearchOutcome) -> None:
    """Exits with a search's own code, whether or not its answer could be written."""
    code = exit_code(outcome)
    if code:
        raise typer.Exit(code)


def exit_code(outcome: SearchOutcome) -> int:
    """130 for a search that was stopped, 7 by a time limit; 5 where trials are left that lost their workers, 6 where
    all that was trained diverged, 1 where no trial is complete."""
    if outcome.state == "cancelled":
        return _TIME_UP if outcome.time_up else _CANCELLED
    if outcome.state == "interrupted":
        return _LOST
    if outcome.state == "failed":
        return _FAILED if outcome.progress.failed else _DIVERGED
    return 0


def _as_json(outcome: SearchOutcome) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(outcome)


def _next(outcome: SearchOutcome, best: int | None) -> list[str]:
    import shlex

    name = shlex.quote(outcome.name)
    if outcome.state in ("cancelled", "interrupted"):
        return [f"archsearch resume {name}", f"archsearch pareto {name}", f"archsearch trials {name}"]
    show = [f"archsearch show {best}"] if best is not None else []
    return [f"archsearch pareto {name} --png front.png", *show, f"archsearch trials {name}"]


def _find_again(shown: str, url: str) -> tuple[str, str]:
    """What the next commands need to find this database: words before them and an option; no password is shown."""
    import shlex

    from archsearch.storage import storage_url

    if storage_url() == url:
        return "", ""
    if shown != url:
        return " (with ARCHSEARCH_STORAGE set to this database)", ""
    return "", f" --storage {shlex.quote(url)}"
