"""``archsearch show``: one trial with all that is known of it, and the command that measures it again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table
from archsearch.errors import ArchsearchError

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord, Store, TrialRecord


_UNREADABLE = (ArchsearchError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a row of another shape may raise."""

_NUMBER = re.compile(r"[0-9]{1,18}\Z")
"""As many digits as every database's integers have."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("show")(show)


def show(
    trial: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL", help="Id of the trial, as tables show it; or NAME/NUMBER, its number in a search."
        ),
    ],
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Shows one trial, and the command that repeats it.

    Layers, costs, figures by seed, the sweep over learning rates, a curve, versions and reasons.
    """
    from archsearch.analysis.repeat import repeat
    from archsearch.storage import Store, storage_url

    with Store.open(storage_url(storage), read_only=True) as store:
        record = find_trial(store, trial)
        search = store.search(record.search_id)
        plugins = store.plugins(record.search_id)
        by = [proposal.owner for proposal in store.proposals(search.id) if proposal.trial == record.id]
    if json:
        used = [dict(zip(("plugin", "distribution", "version"), plugin, strict=True)) for plugin in plugins]
        beside = {"plugins": used, "repeat": _known(lambda: repeat(record, search)), "added_by": by[0] if by else None}
        print_json(_as_json(record, search) | beside)
    else:
        _print(record, search, plugins)
        if record.kind == "added" and by and by[0]:
            console().print(f"added by {by[0]}", soft_wrap=True)
        again = _read("the command", lambda: repeat(record, search))
        console().print(f"to measure it again:\n  {again}", soft_wrap=True)


def find_trial(store: Store, text: str) -> TrialRecord:
    """The trial that `text` names: its id in the database, or ``NAME/NUMBER``.

    Raises `SpecError` for other texts, `StorageError` where there is no such trial.
    """
    from archsearch.errors import SpecError, StorageError

    name, slash, number = text.rpartition("/")
    if not _NUMBER.match(number) or bool(name) != bool(slash):
        raise SpecError(f'"{text}" names no trial: give its id, as 7, or its number in a search, as quickstart/3')
    if not slash:
        return store.trial(int(number))
    search = store.search(name)
    for record in store.trials(search.id):
        if record.number == int(number):
            return store.trial(record.id)
    raise StorageError(f'{store.url}: the search "{name}" has no trial number {number}: see `archsearch trials {name}`')


def _as_json(record: TrialRecord, search: SearchRecord) -> dict[str, Any]:
    from dataclasses import asdict

    data = asdict(record)
    for field in ("created_at", "started_at", "finished_at"):
        data[field] = data[field].isoformat() if data[field] else None
    for measurement in data["measurements"]:
        measurement["created_at"] = measurement["created_at"].isoformat()
    return {
        "trial": data.pop("id"),
        "search": search.name,
        **data,
        "feasible": record.feasible,
        "exercised": record.exercised,
        "valid_for": _known(lambda: _validity(record, search)),
    }


def _validity(record: TrialRecord, search: SearchRecord) -> str:
    from archsearch.analysis.validity import Validity

    return Validity.of(search, record).sentence


def _print(record: TrialRecord, search: SearchRecord, plugins: list[tuple[str, str | None, str | None]]) -> None:
    from archsearch.cli.remarks import judged, not_exercised
    from archsearch.registry import load_registry

    out = console()
    kind = record.kind + (f" of trial {record.parent}" if record.parent else "")
    out.print(f"trial {record.id} of {search.name} (number {record.number}, {kind}): {record.state}")
    out.print(f"{record.pattern}   digest {record.digest}", soft_wrap=True)
    for line in _lines("the backbone", lambda: _backbone(record, search)):
        out.print(line, soft_wrap=True)
    if record.reason:
        out.print(f"reason: {record.reason}", soft_wrap=True)
    for line in _where(record):
        out.print(line, soft_wrap=True)
    payloads = [measured.payload for measured in record.measurements]
    for line in not_exercised(record.unexercised, record.reason):
        out.print(line, soft_wrap=True)
    for line in _lines("how it was judged", lambda: judged(payloads, load_registry())):
        out.print(line, soft_wrap=True)
    out.print(_read("layers", lambda: _layers(record)))
    if record.costs:
        out.print(_read("costs", lambda: _costs(record)))
    if record.measurements:
        out.print(_read("measurements", lambda: _measurements(record)))
        out.print(_read("sweep", lambda: _sweep(record)))
    for line in _lines("curve", lambda: _curve(record)):
        out.print(line, soft_wrap=True)
    for text in _lines("versions", lambda: sorted(set(_versions(record)))):
        out.print(text, soft_wrap=True)
    used = ", ".join(f"{plugin} ({distribution} {version})" for plugin, distribution, version in plugins)
    out.print(f"plugins of the search: {used}" if used else "plugins of the search: none recorded", soft_wrap=True)
    out.print(_read("what it is valid for", lambda: _validity(record, search)), soft_wrap=True)


def _backbone(record: TrialRecord, search: SearchRecord) -> Iterator[str]:
    """What the search drew of the backbone."""
    from archsearch.analysis.validity import drawn_backbone

    drawn = drawn_backbone(search.spec, record.arch)
    if drawn:
        yield f"backbone drawn: {', '.join(f'{key} = {value}' for key, value in drawn.items())}"


def _where(record: TrialRecord) -> Iterator[str]:
    """Where the trial ran last, and how many workers were lost under it."""
    placed = record.placement or {}
    if placed.get("node"):
        gpus = placed.get("gpus")
        cards = f", GPU {', '.join(map(str, gpus))}" if isinstance(gpus, list) and gpus else ""
        yield f"ran on {placed['node']}, {placed.get('device', 'an unknown device')}{cards}"
    if record.attempts:
        yield f"workers lost: {record.attempts}"


def _read(what: str, make: Callable[[], Any]) -> Any:
    """What `make` gives of a stored trial, or a line that says why it cannot be read: the rest is shown all the same.

    Whoever wrote the row, its architecture, its measurements and the spec of its search may be of any shape.
    """
    from textwrap import shorten

    try:
        return make()
    except _UNREADABLE as error:
        kind = "" if isinstance(error, ArchsearchError) else f"{type(error).__name__}: "
        return f"{what}: cannot be read from the database ({kind}{shorten(str(error), 200, placeholder=' ...')})"


def _known(make: Callable[[], str]) -> str | None:
    """What `make` gives, None where the stored trial cannot be read: JSON must not hold an excuse for a value."""
    try:
        return make()
    except _UNREADABLE:
        return None


def _lines(what: str, make: Callable[[], Iterable[str]]) -> list[str]:
    found = _read(what, lambda: list(make()))
    return [found] if isinstance(found, str) else found


def _layers(record: TrialRecord) -> Any:
    rows = [[index, layer["mixer"], _options(layer)] for index, layer in enumerate(record.arch["layers"])]
    return table([">layer", "mixer", "options"], rows)


def _options(layer: Mapping[str, Any]) -> str:
    """Those of the mixer, and the width of the layer's own channel mixer."""
    listed = ", ".join(f"{key}={value}" for key, value in layer["options"].items())
    return listed if layer.get("ffn_dim") is None else f"{listed} :ffn_dim={layer['ffn_dim']}".lstrip()


def _costs(record: TrialRecord) -> Any:
    from archsearch.costs import MEASURES
    from archsearch.units import format_quantity

    rows = []
    for term, value in record.costs.items():
        measure, _, context = term.partition("@")
        over = record.violations.get(term)
        remark = f"{over:.0%} over budget" if over is not None else ""
        shown = format_quantity(value, unit=MEASURES.get(measure, ""))
        rows.append([measure, f"{int(context):,}" if context else "-", shown, remark])
    return table(["cost", ">at tokens", ">value", ""], rows)


def _measurements(record: TrialRecord) -> Any:
    rows = []
    for measured in record.measurements:
        data = measured.payload
        metric = data["metric"]
        rows.append(
            [
                data["task"],
                measured.seed,
                measured.status,
                metric,
                _figure(data["test"].get(metric)),
                _figure(data["validation"].get(metric)),
                _figure(data["chance"]),
                _rate(data["learning_rate"]),
                data["steps"],
                data["solved_at"] or "-",
                f"{data['train_seconds']:.1f}",
                record.origin(measured) or data["reason"] or "",
            ]
        )
    columns = [">test", ">validation", ">chance", ">rate", ">steps", ">solved at", ">seconds", "remark"]
    return table(["task", ">seed", "status", "metric", *columns], rows)


def _sweep(record: TrialRecord) -> Any:
    rows = []
    for measured in record.measurements:
        for entry in measured.payload["sweep"]:
            value = entry["validation"].get(measured.payload["metric"])
            chosen = "chosen" if entry["learning_rate"] == measured.payload["learning_rate"] else ""
            rows.append(
                [
                    measured.payload["task"],
                    measured.seed,
                    _rate(entry["learning_rate"]),
                    entry["status"],
                    _figure(value),
                    entry["steps"],
                    chosen or entry.get("reason") or "",
                ]
            )
    return table(["sweep", ">seed", ">rate", "status", ">validation", ">steps", ""], rows)


def _curve(record: TrialRecord) -> Iterator[str]:
    """The first curve that can be drawn: of a pruned trial the one in which it was stopped."""
    from archsearch.analysis.axes import ticks
    from archsearch.cli.chart import Axis, Paper, curve

    for label, points in _curves(record):
        if len(points) > 1:
            marks = [ticks(values, unit="", log=False) for values in zip(*points, strict=True)]
            axes = Axis(label="step", ticks=marks[0]), Axis(label=label, ticks=marks[1])
            yield curve(points, *axes, Paper.of(console()))
            return


def _curves(record: TrialRecord) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Each curve with what it is of, in words."""
    if record.unfinished:
        last = record.unfinished[-1]
        cut = [
            (float(point.step or 0), point.value)
            for point in record.unfinished
            if point.value is not None and point.name == last.name
        ]
        yield f"{last.name} on validation until it was stopped (seed {last.seed})", cut
    for measured in record.measurements:
        metric = measured.payload["metric"]
        points = [
            (float(entry["step"]), float(entry[metric]))
            for entry in measured.payload["curve"]
            if entry.get(metric) is not None
        ]
        yield f"{metric} on validation ({measured.payload['task']}, seed {measured.seed})", points


def _versions(record: TrialRecord) -> Iterator[str]:
    for measured in record.measurements:
        versions: Mapping[str, str] = measured.payload["versions"]
        yield "measured with " + ", ".join(f"{name} {version}" for name, version in versions.items())


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
