"""``archsearch bench search``: the searcher against a table of ground truth, sampler by sampler, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli import bench
from archsearch.cli.output import check_writable, console, finite, quiet_console, writing
from archsearch.cli.sampler_names import sampler_names

if TYPE_CHECKING:
    from archsearch.search.truth.case import Case
    from archsearch.search.truth.table import TruthTable

MOST_SEEDS, MOST_JOBS = 1000, 256

SecondSeeds = Annotated[
    list[float] | None,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=0.5,
        help="Beside none: this share of the trials are second seeds, as of search.second_seeds; may be repeated.",
    ),
]
GoOn = Annotated[
    bool,
    typer.Option("--go-on/--cut-off", help="A search that has not found 95% after its trials draws on until it has."),
]


def register(app: typer.Typer) -> None:
    """Adds the command to ``archsearch bench``."""
    bench.app.command("search")(bench_search)


def bench_search(
    truth: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Table of ground truth; by default the package's.")
    ] = None,
    sampler: Annotated[
        list[str] | None, typer.Option("--sampler", metavar="NAME", help="May be repeated; by default all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=MOST_SEEDS, help="Searches a sampler, each with its seed.")] = 20,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", min=2, max=100_000, help="Trials a search; by default the table's spec's."),
    ] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="By commas, as mqar.accuracy,state_bytes; may be repeated; by default several."
        ),
    ] = None,
    second_seeds: SecondSeeds = None,
    go_on: GoOn = True,
    jobs: Annotated[int, typer.Option(min=1, max=MOST_JOBS, help="Processes.")] = 1,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to a file.")] = None,
) -> None:
    """Runs the real searcher against a table in place of training, and says how far it comes with how many trials.

    Of each sampler: trials to 95% of the true hypervolume, as the search saw it and by seeds that it has not seen, with
    the interval of the median over searches, and for how many of random's trials that is; the share of it after 16 and
    32 trials; how many points of the final fronts fresh seeds take off, and how often the best one. Searches draw on
    beyond their trials where 95% is not found yet, which is counted; their answers are those of their trials.
    """
    from archsearch.cli.bench_search_tables import line as told
    from archsearch.cli.bench_search_tables import tables
    from archsearch.registry import load_registry
    from archsearch.search.truth.study import Plan, batched, jobs_of, run_jobs, summary, with_ratios
    from archsearch.search.truth.table import PACKAGED, TruthTable

    path, samplers = (truth or PACKAGED).absolute(), sampler_names(sampler)
    spent = [share for share in second_seeds or [] if share]
    held = TruthTable.load(path, load_registry())
    cases = _cases(held, objectives or [], spent)
    count = held.problem.spec.search.trials if trials is None else trials
    out = console() if json is None else quiet_console()
    for line in held.left_out:
        out.print(line, soft_wrap=True)
    check_writable(json)
    plans = [Plan(sampler=name, second_seeds=share) for name in samplers for share in (0.0, *spent)]
    found: list[dict[str, Any]] = []
    searches = jobs_of(path, cases, plans, trials=count, seeds=seeds, go_on=go_on)
    for done in batched(run_jobs(searches, jobs), seeds):
        found = with_ratios([*found, summary(done)])
        out.print(told(found[-1]), soft_wrap=True)
        if json is not None:  # a run that is ended leaves what it has
            _write(json, _header(held, path, count, seeds), found)
    for names in cases:
        for one in tables([one for one in found if one["objectives"] == list(names)], names, count, seeds):
            out.print(one)
    if json is not None:
        out.print(f"written: {json}", soft_wrap=True)


def _cases(held: TruthTable, given: Sequence[str], second_seeds: Sequence[float]) -> list[tuple[str, ...]]:
    """Sets of objectives that the table can pose, those that were given or the usual ones."""
    from archsearch.search.truth.case import Case, default_objectives

    named = [tuple(part.strip() for part in names.split(",") if part.strip()) for names in given]
    cases = named or default_objectives(held)
    for names in cases:
        _check(Case.of(held, names), second_seeds)
    return cases


def _check(case: Case, second_seeds: Sequence[float]) -> None:
    from archsearch.errors import SpecError

    if second_seeds and len(case.seeds) < 3:
        raise SpecError(
            f"--second-seeds asks for three seeds of {case.name}, one of which no search has seen, and the table "
            f"has {len(case.seeds)} that are whole: measure more of it, or leave the option out"
        )


def _header(held: TruthTable, path: Path, trials: int, seeds: int) -> dict[str, Any]:
    import hashlib

    return {
        "table": path.name,
        "table_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "architectures": len(held.archs),
        "columns": [list(column) for column in held.columns],
        "trials": trials,
        "searches": seeds,
    }


def _write(path: Path, header: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> None:
    import json

    text = json.dumps(finite({**header, "results": list(found)}), indent=1, allow_nan=False)
    with writing(path):
        path.write_text(f"{text}\n", encoding="utf-8")
