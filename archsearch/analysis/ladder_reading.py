"""Reading a ladder: the searches of its rungs, who is on them, and what was measured there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from math import inf, isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from archsearch.analysis.answer import read_answer
from archsearch.analysis.ladder import Ladder, Metric, Rung, Standing
from archsearch.analysis.objectives import Objective, objectives_of
from archsearch.analysis.speed import SHARES
from archsearch.analysis.validity import drawn_backbone, on_backbone
from archsearch.errors import SpecError

if TYPE_CHECKING:
    from archsearch.storage import MeasurementRecord, SearchRecord, Store, TrialRecord

RECALL = "recall"
Speeds: TypeAlias = Mapping[tuple[int, str], Mapping[int, float]]
"""Metrics of how soon a model learns, which no measurement holds, by trial and name: values by seed."""

_TOLD = ("pattern", "digest", "below", "why")
SIZES = {
    "model": ("d_model", "n_layers", "n_heads"),
    "recipe": ("steps", "tokens", "batch_size", "seeds"),
    "objectives": ("context",),
}
"""What is told of a rung's size, by tables of its spec."""


def read_ladder(store: Store, name: str) -> Ladder:
    """The ladder of a search, by its name or by that of one of its rungs.

    Raises `SpecError` for a search without rungs, and for a rung whose ladder was removed; `StorageError` for one that
    there is not.
    """
    root = first_rung(store, name)
    above = [one for one in store.searches() if _ladder_of(one) == root.name]
    records = [root, *sorted(above, key=_number)]
    planned = 1 + _planned(root)
    if planned == 1 and len(records) == 1:
        raise SpecError(f'"{name}" is no ladder: its spec has no [[rung]]')
    keys: dict[str, str] = {}
    rungs = [_rung(store, records, index, keys) for index in range(len(records))]
    return Ladder(
        name=root.name, planned=max(planned, len(records)), rungs=tuple(rungs), metrics=_metrics(store, records, rungs)
    )


def first_rung(store: Store, name: str) -> SearchRecord:
    """The search that the ladder of a rung begins with, or the search itself; raises `SpecError` where it is gone."""
    found = store.search(name)
    ladder = _ladder_of(found)
    if ladder is None:
        return found
    if ladder not in {one.name for one in store.searches()}:
        raise SpecError(
            f'"{name}" is a rung of "{ladder}", which the database has no more: `archsearch pareto {name}` shows what '
            "was measured on it"
        )
    return store.search(ladder)


def belongs_to_ladder(record: SearchRecord) -> bool:
    """Whether a search has rungs, or is one."""
    return _ladder_of(record) is not None or _planned(record) > 0


def rungs_above(records: Iterable[SearchRecord], names: Iterable[str]) -> list[str]:
    """The searches that stand on those of these `names`, of all `records`, and are none of them: the rungs of a ladder,
    of a rung those above it, from below upwards."""
    known, wanted = {record.name: record for record in records}, dict.fromkeys(names)
    found: dict[str, None] = {}
    for record in (known[name] for name in wanted if name in known):
        ladder = _ladder_of(record) or (record.name if _planned(record) else None)
        above = [one for one in known.values() if _ladder_of(one) == ladder and _number(one) > _number(record)]
        found |= dict.fromkeys(one.name for one in sorted(above, key=_number) if ladder is not None)
    return [name for name in found if name not in wanted]


def _planned(record: SearchRecord) -> int:
    """Rungs above the search that its spec has."""
    found = record.spec.get("rung")
    return len(found) if isinstance(found, list | tuple) else 0


def _climbed(record: SearchRecord) -> Mapping[str, Any]:
    """Where a rung comes from, as its stored spec says; nothing where that cannot be read."""
    found = record.spec.get("climbed")
    return found if isinstance(found, Mapping) else {}


def _ladder_of(record: SearchRecord) -> str | None:
    climbed = _climbed(record)
    name, rung = climbed.get("ladder"), climbed.get("rung")
    return name if isinstance(name, str) and isinstance(rung, int) else None


def _number(record: SearchRecord) -> int:
    return int(_climbed(record).get("rung", 1))


def _kept(record: SearchRecord) -> list[Mapping[str, Any]]:
    found = _climbed(record).get("kept")
    entries = found if isinstance(found, list | tuple) else ()
    return [one for one in entries if isinstance(one, Mapping) and all(isinstance(one.get(key), str) for key in _TOLD)]


def _rung(store: Store, records: Sequence[SearchRecord], index: int, keys: dict[str, str]) -> Rung:
    """A rung; `keys` are those of architectures by their digests on the rung below, and then on this one."""
    record = records[index]
    above = records[index + 1] if index + 1 < len(records) else None
    if index:
        mine = [(one["digest"], keys.get(one["below"], one["below"]), str(one["why"])) for one in _kept(record)]
    else:
        mine = [(one["below"], one["below"], str(one["why"])) for one in (_kept(above) if above is not None else ())]
    keys.clear()
    keys.update({digest: key for digest, key, _ in mine})
    patterns = _patterns(record)
    found = read_answer(store, record.name).points.set_index("digest")
    speeds = _speeds_of(store, record.name, objectives_of(record))
    standings = []
    for digest, key, why in mine:
        trial = store.trial(int(found.loc[digest, "trial"])) if digest in found.index else None
        standings.append(_standing(key, patterns.get(digest, digest), why, trial, record, speeds))
    return Rung(
        number=_number(record),
        search=record.name,
        state=record.state_now(),
        sizes=_sizes(record.spec),
        standings=tuple(standings),
        left={} if above is None else _left(above),
        without_noise=() if above is None else _without_noise(above),
        late=0 if above is None else _late(store, record, above),
    )


def _patterns(record: SearchRecord) -> dict[str, str]:
    """The patterns of what was carried up, by digest; with the backbone where several were drawn."""
    space = record.spec.get("space")
    given = space.get("backbones", ()) if isinstance(space, Mapping) else ()
    backbones = given if isinstance(given, list | tuple) else ()
    return {
        one["digest"]: on_backbone(one["pattern"], drawn if isinstance(drawn, Mapping) else {})
        for one, drawn in zip_longest(_kept(record), backbones)
        if one is not None
    }


def _left(above: SearchRecord) -> dict[str, str]:
    found = _climbed(above).get("left")
    return {str(pattern): str(why) for pattern, why in found.items()} if isinstance(found, Mapping) else {}


def _without_noise(above: SearchRecord) -> tuple[str, ...]:
    found = _climbed(above).get("without_noise")
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def _late(store: Store, record: SearchRecord, above: SearchRecord) -> int:
    """Candidates whose last trial ended after the rung above was begun."""
    trials = [one for one in store.trials(record.id) if one.kind != "confirm" and one.state == "complete"]
    moments = {one.digest: one.finished_at for one in trials if one.kind != "reference"}
    return sum(moment is not None and moment > above.created_at for moment in moments.values())


def _sizes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a rung is, by keys of the spec."""
    tables = {name: spec[name] if isinstance(spec.get(name), Mapping) else {} for name in SIZES}
    found = {key: tables[name].get(key) for name, keys in SIZES.items() for key in keys}
    return {key: value for key, value in found.items() if type(value) is int}


def _standing(
    key: str, pattern: str, why: str, trial: TrialRecord | None, record: SearchRecord, speeds: Speeds
) -> Standing:
    if trial is None:
        return Standing(key=key, pattern=pattern, why=why, trial=None, state="not begun")
    named = on_backbone(trial.pattern, drawn_backbone(record.spec, trial.arch))
    known = Standing(key=key, pattern=named, why=why, trial=trial.id, state=trial.state)
    if trial.state != "complete":
        return known
    metrics = metrics_of(trial, objectives_of(record))
    scores = {metric.name: scores_of(trial, metric, speeds) for metric in metrics}
    return replace(
        known,
        scores={name: values for name, values in scores.items() if values},
        flops=_flops_of(trial),
        trainings={
            task: {one.seed: one.key for one in _of_task(trial, task)}
            for task in {one.task for one in trial.measurements}
        },
    )


def _speeds_of(store: Store, search: str, objectives: Sequence[Objective]) -> Speeds:
    """Those that are objectives of a search, on test."""
    names = [one.name for one in objectives if one.name.rpartition(".")[2] in SHARES]
    found: dict[tuple[int, str], dict[int, float]] = {}
    if names:
        values = store.values_frame(search, names, ("test",)).dropna(subset=["seed", "value"])
        for row in values.to_dict("records"):
            found.setdefault((int(row["trial"]), str(row["name"])), {})[int(row["seed"])] = float(row["value"])
    return found


def metrics_of(trial: TrialRecord, objectives: Sequence[Objective]) -> list[Metric]:
    """The measured objectives, then the primary metrics of tasks that are none of them."""
    primary = {one.task: (str(one.payload["metric"]), str(one.payload["direction"])) for one in trial.measurements}
    recall = [task for task in primary if any(one.payload.get("recall") for one in _of_task(trial, task))]
    found = []
    for objective in objectives:
        if objective.name == RECALL:
            found.append(Metric(name=RECALL, direction="maximize", task=recall[0] if len(recall) == 1 else ""))
        elif not objective.is_cost:
            task = objective.name.rpartition(".")[0]
            found.append(Metric(name=objective.name, direction=objective.direction, task=task))
    covered = {metric.name for metric in found}
    covered |= {f"{one.task}.{primary[one.task][0]}" for one in found if one.name == RECALL and one.task in primary}
    found += [
        Metric(name=f"{task}.{metric}", direction=direction, task=task)
        for task, (metric, direction) in primary.items()
        if f"{task}.{metric}" not in covered
    ]
    return found


def _of_task(trial: TrialRecord, task: str) -> list[MeasurementRecord]:
    return [one for one in trial.measurements if one.task == task]


def scores_of(trial: TrialRecord, metric: Metric, speeds: Speeds) -> dict[int, float]:
    """Values on test by seed; none at all where one lacks or is not finite."""
    if metric.name == RECALL:
        found = [
            (one.seed, one.payload["test"].get(one.payload["metric"]))
            for one in trial.measurements
            if one.payload.get("recall")
        ]
    elif (name := metric.name.rpartition(".")[2]) in SHARES:
        timed = speeds.get((trial.id, metric.name), {})
        found = [(seed, timed.get(seed)) for seed in trial.seeds]
    else:
        task = metric.name.rpartition(".")[0]
        found = [(one.seed, one.payload["test"].get(name)) for one in _of_task(trial, task)]
    values: dict[int, float] = {}
    for seed, value in found:
        if not isinstance(value, int | float) or not isfinite(value):
            return {}
        values[seed] = min(float(value), values.get(seed, inf)) if metric.name == RECALL else float(value)
    return values


def _flops_of(trial: TrialRecord) -> dict[str, float]:
    """Training FLOPs of the run that is reported, of its best rate alone, by task: the mean over seeds."""
    found: dict[str, list[float]] = {}
    for one in trial.measurements:
        payload = one.payload
        flops = payload.get("costs", {}).get("train_flops")
        rows = payload.get("recipe", {}).get("batch_size")
        if isinstance(flops, int | float) and isinstance(rows, int) and payload.get("steps"):
            found.setdefault(one.task, []).append(float(flops) * rows * payload["steps"])
    return {task: fmean(values) for task, values in found.items()}


def _metrics(store: Store, records: Sequence[SearchRecord], rungs: Sequence[Rung]) -> tuple[Metric, ...]:
    """The metrics that any rung has, as the first rung orders them."""
    found: dict[str, Metric] = {}
    for record, rung in zip(records, rungs, strict=True):
        trial = next((one.trial for one in rung.standings if one.scores), None)
        if trial is not None:
            for metric in metrics_of(store.trial(trial), objectives_of(record)):
                found.setdefault(metric.name, metric)
    return tuple(found.values())
