"""``archsearch sweep``: each mixer over sizes of its state and difficulties of a task, drawn as curves."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.logs import LogFormatOption
from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import (
    JsonFlag,
    StorageOption,
    check_writable,
    console,
    print_json,
    quiet_console,
    table,
)
from archsearch.cli.run import EXIT_CODES, AddressOption, carry_out, problem_of, tell_end
from archsearch.cli.watching import MetricsOption, Watching

if TYPE_CHECKING:
    from rich.console import Console

    from archsearch.analysis.sweep import Sweep
    from archsearch.search import SearchOutcome, SearchSpec
    from archsearch.search.time_limit import TimeLimit
    from archsearch.storage import Store


PICTURES = (".svg", ".png", ".pdf")

TargetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SPEC|NAME]", help="Spec file whose backbone, tasks and recipe are taken, or the name of a sweep."
    ),
]
MixersOption = Annotated[
    str | None,
    typer.Option("--mixers", metavar="LIST", help='As "full,kda,moba(top_k=2)"; else space.mixers of SPEC.'),
]
PairsOption = Annotated[
    str | None,
    typer.Option("--pairs", metavar="LIST", help='Numbers of pairs, as "4,8,16"; else the tasks of SPEC.'),
]
SizesOption = Annotated[
    int | None, typer.Option("--sizes", metavar="N", help="Sizes of each mixer's state where SPEC lists none (3).")
]
MinutesOption = Annotated[
    float | None,
    typer.Option("--minutes", metavar="M", help="End in order after so many minutes; --resume goes on."),
]
PictureOption = Annotated[
    str | None, typer.Option("--picture", metavar="FILE", help="Draw the curves, as .svg, .png or .pdf.")
]
AgainstOption = Annotated[
    str | None, typer.Option("--against", metavar="COST", help="Across: state_bytes, or decode_read_bytes.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    sweep = typer.Typer(help="Sweeps: each mixer over sizes of its state and difficulties of a task.")
    sweep.command("recall", epilog=EXIT_CODES)(recall)
    app.add_typer(sweep, name="sweep", no_args_is_help=True)


def recall(
    target: TargetArgument = None,
    mixers: MixersOption = None,
    pairs: PairsOption = None,
    sizes: SizesOption = None,
    minutes: MinutesOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained, and train nothing.")] = False,
    go_on: Annotated[bool, typer.Option("--resume", help="Go on with the sweep of that name.")] = False,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write every point as CSV.")] = None,
    picture: PictureOption = None,
    against: AgainstOption = None,
    storage: StorageOption = None,
    address: AddressOption = None,
    metrics: MetricsOption = None,
    log_format: LogFormatOption = None,
    json: JsonFlag = False,
) -> None:
    """Trains each mixer over sizes of its state and numbers of pairs to recall, and draws what it recalls.

    A search like any other is made for it, and one more for each other width of the model where nothing else sizes a
    mixer. Of the NAME of one, what is measured is shown.
    """
    from archsearch.storage import Store, storage_url

    output = _Output(json=json, csv=csv, picture=_drawable(picture), against=_cost(against))
    if target is not None and not target.endswith(".toml"):
        _refuse_training(target, {"--mixers": mixers, "--pairs": pairs, "--sizes": sizes, "--minutes": minutes})
        with Store.open(storage_url(storage), read_only=True) as store:
            output.show(store, target, console())
        return
    specs = _specs(target, mixers, pairs, sizes)
    if plan:
        _tell_plan(specs, json=json)
        return
    from archsearch.search.sweep import told

    check_writable(csv, picture)
    if not json:
        quiet_console().print(told(specs), soft_wrap=True, markup=False)
    limit = _limit(minutes)
    problems = [problem_of(spec) for spec in specs]
    for problem in problems:
        finish = _Finish(output=output, name=specs[0].name, last=problem is problems[-1])
        carry_out(
            problem,
            finish,
            watching=Watching(json=json, log_format=log_format, metrics=metrics),
            storage=storage,
            address=address,
            going_on={} if go_on else None,
            limit=limit,
        )


def _refuse_training(name: str, given: Mapping[str, object]) -> None:
    from archsearch.errors import SpecError

    for option, value in given.items():
        if value is not None:
            raise SpecError(
                f'"{name}" is the name of a sweep, which is shown: {option} is for trainings: give a spec, a .toml file'
            )


def _drawable(picture: str | None) -> str | None:
    """Refused before anything is trained where nobody could draw it."""
    from archsearch.errors import SpecError, listing

    if picture is not None and not picture.endswith(PICTURES):
        raise SpecError(f"--picture {picture}: its name must end with {listing(PICTURES)}, as recall.svg")
    return picture


def _cost(given: str | None) -> str:
    from archsearch.analysis.sweep import COSTS, STATE
    from archsearch.errors import SpecError, listing, nearest

    if given is not None and given not in COSTS:
        raise SpecError(f"--against {given}{nearest(given, COSTS)}: curves are drawn against {listing(COSTS)}")
    return given or STATE


def _specs(target: str | None, mixers: str | None, pairs: str | None, sizes: int | None) -> tuple[SearchSpec, ...]:
    from archsearch.registry import load_registry
    from archsearch.search import SearchSpec
    from archsearch.search.sweep import default_spec, sweep_specs, texts_of, wholes_of

    numbers = wholes_of("--pairs", pairs)
    base = default_spec(numbers) if target is None else SearchSpec.load(target)
    return sweep_specs(
        base,
        load_registry(),
        mixers=texts_of("--mixers", mixers),
        pairs=numbers or (),
        sizes=3 if sizes is None else sizes,
    )


def _limit(minutes: float | None) -> TimeLimit | None:
    """One end for all searches of the sweep."""
    import math

    from archsearch.errors import SpecError
    from archsearch.search.time_limit import TimeLimit

    if minutes is None:
        return None
    if not (math.isfinite(minutes) and 0 < minutes <= 1e6):
        raise SpecError(f"--minutes {minutes:g}: give a number of minutes above 0, as 25")
    return TimeLimit(until=datetime.now(UTC) + timedelta(minutes=minutes))


def _tell_plan(specs: Sequence[SearchSpec], *, json: bool) -> None:
    from archsearch.search.sweep import told, trainings

    if json:
        searches = [{**spec.to_json(), "trainings": trainings([spec])} for spec in specs]
        print_json({"searches": searches, "trainings": trainings(specs)})
        return
    out = console()
    out.print(told(specs), soft_wrap=True, markup=False)
    rows = [(spec.name, str(spec.model.d_model), text) for spec in specs for text in spec.space.architectures]
    out.print(table(["search", ">d_model", "architecture"], rows))


@dataclass(frozen=True, kw_only=True)
class _Output:
    """Where the curves go."""

    json: bool
    csv: str | None
    picture: str | None
    against: str

    def show(self, store: Store, name: str, out: Console, ended: Mapping[str, Any] | None = None) -> None:
        """Writes the files, then the tables and charts, or JSON, in which is how the search has ended."""
        from archsearch.analysis.sweep import measured, read_sweep
        from archsearch.cli.sweep_tables import print_sweep
        from archsearch.registry import load_registry

        found = measured(read_sweep(store, name, load_registry()))
        written = list(self._write(found))
        if self.json:
            print_json({**(ended or {}), **found.to_json()}, None if ended is None else QuietOutlet())
            return
        print_sweep(found, self.against, out)
        for path in written:
            out.print(f"written: {path}", soft_wrap=True)

    def _write(self, found: Sweep) -> list[str]:
        from archsearch.cli.sweep_picture import write_csv, write_sweep_picture

        if self.csv is not None:
            write_csv(found, self.csv)
        if self.picture is not None:
            write_sweep_picture(found, self.against, self.picture)
        return [path for path in (self.csv, self.picture) if path is not None]


@dataclass(frozen=True, kw_only=True)
class _Finish:
    """After each search of a sweep: the curves after the last one, or after one that was stopped."""

    output: _Output
    name: str
    last: bool

    def __call__(self, store: Store, outcome: SearchOutcome, url: str) -> None:
        from dataclasses import asdict

        from archsearch.errors import SpecError

        stopped = outcome.state in ("cancelled", "interrupted")
        if not self.last and not stopped and outcome.state != "failed":
            return
        ended = {**asdict(outcome), "database": store.url}
        try:
            self.output.show(store, self.name, quiet_console(), ended)
        except SpecError as error:  # as where it was stopped before anything was measured: how it ended is told
            if self.output.json:
                print_json({**ended, "points": [], "not_drawn": str(error)}, QuietOutlet())
            else:
                quiet_console().print(f"not drawn: {error}", soft_wrap=True)
        if not self.output.json:
            name = shlex.quote(self.name)
            again = "the same command with --resume" if stopped else f"archsearch sweep recall {name}"
            tell_end(store, outcome, url, [again, f"archsearch trials {name}"])
