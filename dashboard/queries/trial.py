"""One trial as tables: its layers, costs, scores by seed, curves and sweep; from the store's record alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd

from archsearch.analysis.repeat import repeat
from archsearch.analysis.validity import Validity
from archsearch.arch import ArchSpec
from archsearch.costs import MEASURES, CostModel
from archsearch.errors import ArchsearchError, foreign_code
from archsearch.mixer import Resolver
from archsearch.notation import format_layer
from archsearch.storage import SearchRecord, Store, TrialRecord

LAYER_COLUMNS = ("layer", "name", "mixer", "family", "text", "options")
"""One row a layer, counted from 0: the shortest ``name`` it goes by, the plugin's ``mixer`` and ``family``, the layer
in the notation as ``text``, and every option as ``key=value``, a width of its channel mixer behind them."""

SEED_COLUMNS = (
    "task",
    "metric",
    "seed",
    "status",
    "test",
    "validation",
    "chance",
    "learning_rate",
    "steps",
    "solved_at",
    "tokens",
    "train_seconds",
    "remark",
)
"""One row a measurement; ``tokens`` is the length of its sequences, ``solved_at`` the step at which it was solved."""

SCORE_COLUMNS = ("task", "metric", "seeds", "mean", "low", "high", "deviation", "chance")
"""One row a task: the test score over its seeds. A seed without a score leaves none to the task."""


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """A trial with its search, what is known of its validity, its other trials, and the command that repeats it.

    ``again`` is empty where the stored architecture or recipe does not tell it.
    """

    record: TrialRecord
    search: SearchRecord
    plugins: list[tuple[str, str | None, str | None]]
    validity: Validity
    again: str
    others: tuple[TrialRecord, ...]


def trial_view(store: Store, trial: int) -> TrialView:
    """Everything the store has of one trial; raises `StorageError` for one that is not there."""
    record = store.trial(trial)
    search = store.search(record.search_id)
    others = store.trials(record.search_id, digest=record.digest)
    return TrialView(
        record=record,
        search=search,
        plugins=store.plugins(search.id),
        validity=Validity.of(search, record),
        again=_again(record, search),
        others=tuple(other for other in others if other.id != trial),
    )


def _again(record: TrialRecord, search: SearchRecord) -> str:
    told = record.measurements or {"recipe", "tasks"} <= search.spec.keys()
    if not told or not record.arch["layers"]:
        return ""
    try:
        with foreign_code(f"trial {record.id}", "repeat"):
            return repeat(record, search)
    except ArchsearchError:
        return ""


def judged_by_steps(record: TrialRecord) -> bool:
    """Whether a score of the trial is that of the recurrent form, step by step, and not of the forward pass."""
    return any(measured.payload.get("judged") == "steps" for measured in record.measurements)


JUDGED_BY_STEPS = (
    "Judged by steps: the scores are those of decoding token by token, as this architecture's forward pass gives "
    "other values than its decoding."
)


def arch_of(record: TrialRecord, resolver: Resolver) -> ArchSpec | None:
    """The architecture, or None where a plugin that it needs is missing or has changed its options."""
    found = _read(record, resolver)
    return found if isinstance(found, ArchSpec) else None


def why_unread(record: TrialRecord, resolver: Resolver) -> str:
    """Why `arch_of` has no architecture of a trial; "" where it has one."""
    found = _read(record, resolver)
    return "" if isinstance(found, ArchSpec) else str(found)


def _read(record: TrialRecord, resolver: Resolver) -> ArchSpec | ArchsearchError:
    try:
        with foreign_code(f"trial {record.id}", "options"):
            return ArchSpec.from_json(record.arch, resolver)
    except ArchsearchError as error:
        return error


def layers_frame(arch: Mapping[str, Any], resolver: Resolver) -> pd.DataFrame:
    """`LAYER_COLUMNS` of a stored architecture; layers of plugins that are missing are of the family "other"."""
    rows = [(index, *_layer(layer, resolver)) for index, layer in enumerate(arch["layers"])]
    return pd.DataFrame(rows, columns=list(LAYER_COLUMNS))


def _layer(layer: Mapping[str, Any], resolver: Resolver) -> tuple[str, str, str, str, str]:
    mixer, options = str(layer["mixer"]), layer.get("options", {})
    listed = ", ".join(f"{key}={value}" for key, value in options.items())
    own = "" if layer.get("ffn_dim") is None else f":ffn_dim={layer['ffn_dim']}"
    family = "other"
    try:
        with foreign_code(mixer, "options"):
            family = resolver.resolve(mixer).plugin.family
            spec = ArchSpec.from_json({"layers": [layer]}, resolver).layers[0]
            text = format_layer(spec, resolver)
        name = format_layer(spec.with_ffn_dim(None), resolver).partition("(")[0]
        return name, mixer, family, text, f"{listed} {own}".strip()
    except ArchsearchError:
        return mixer, mixer, family, (f"{mixer}({listed})" if listed else mixer) + own, f"{listed} {own}".strip()


def differing(layers: pd.DataFrame, first: pd.DataFrame) -> pd.DataFrame:
    """`layers` with the column ``differs``: whether the layer at the same place of `first` is another, or none."""
    theirs = dict(zip(first["layer"], zip(first["mixer"], first["options"], strict=True), strict=True))
    mine = zip(layers["layer"], zip(layers["mixer"], layers["options"], strict=True), strict=True)
    return layers.assign(differs=[theirs.get(place) != layer for place, layer in mine])


def layer_costs_frame(arch: ArchSpec, resolver: Resolver, context: int) -> pd.DataFrame:
    """One row a layer with the costs of each at `context` tokens, FLOPs as totals over their kinds."""
    cost = CostModel(resolver).cost(arch, context)
    return pd.DataFrame(
        [
            {
                "layer": index,
                "params": line.params,
                "state_bytes": line.state_bytes,
                "kv_bytes": line.kv_bytes,
                "traffic": line.traffic.read_bytes + line.traffic.written_bytes,
                "decode_flops": line.decode_flops.total,
                "prefill_flops": line.prefill_flops.total,
                "train_flops": line.train_flops.total,
            }
            for index, line in enumerate(cost.layers)
        ]
    )


def costs_frame(record: TrialRecord) -> pd.DataFrame:
    """The costs that were stored with a trial: ``cost``, ``context``, ``value``, ``unit`` and ``over`` (the share by
    which it exceeds the budget, NaN within)."""
    rows = []
    for term, value in record.costs.items():
        measure, _, context = term.partition("@")
        over = record.violations.get(term, nan)
        tokens = float(context) if context.isascii() and context.isdigit() else nan
        rows.append((measure if tokens == tokens else term, tokens, value, MEASURES.get(measure, ""), over))
    return pd.DataFrame(rows, columns=["cost", "context", "value", "unit", "over"])


def seeds_frame(record: TrialRecord) -> pd.DataFrame:
    """`SEED_COLUMNS` of a trial, by task and seed."""
    return pd.DataFrame(
        [_seed_row(record, index) for index in range(len(record.measurements))], columns=list(SEED_COLUMNS)
    )


def _seed_row(record: TrialRecord, index: int) -> tuple[Any, ...]:
    measured = record.measurements[index]
    data = measured.payload
    metric = data["metric"]
    remarks = [
        record.origin(measured) or str(data.get("reason") or ""),
        "judged by steps" if data.get("judged") == "steps" else "",
    ]
    return (
        data["task"],
        metric,
        measured.seed,
        measured.status,
        _number(data["test"].get(metric)),
        _number(data["validation"].get(metric)),
        _number(data["chance"]),
        _number(data["learning_rate"]),
        data["steps"],
        data["solved_at"],
        data["seq_len"],
        data["train_seconds"],
        "; ".join(filter(None, remarks)),
    )


def scores_frame(seeds: pd.DataFrame) -> pd.DataFrame:
    """`SCORE_COLUMNS` from `seeds_frame`'s rows."""
    rows = []
    for (task, metric), mine in seeds.groupby(["task", "metric"], sort=False):
        values = mine["test"].astype("float64")
        whole = values if values.notna().all() else values * nan
        rows.append(
            (task, metric, len(mine), *whole.agg(["mean", "min", "max", "std"]).tolist(), float(mine["chance"].iloc[0]))
        )
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def curves_frame(record: TrialRecord) -> pd.DataFrame:
    """The learning curves in long form: ``task``, ``seed``, ``name``, ``step``, ``value``; the one in which a pruned
    trial was stopped stands last."""
    rows: list[tuple[Any, ...]] = [
        (measured.payload["task"], measured.seed, name, int(entry["step"]), _number(value))
        for measured in record.measurements
        for entry in measured.payload["curve"]
        for name, value in entry.items()
        if name != "step"
    ]
    rows += [
        (point.task, point.seed, point.name.removeprefix(f"{point.task}."), point.step, _number(point.value))
        for point in record.unfinished
    ]
    return pd.DataFrame(rows, columns=["task", "seed", "name", "step", "value"])


def sweep_frame(record: TrialRecord) -> pd.DataFrame:
    """Every learning rate that was tried: ``task``, ``seed``, ``learning_rate``, ``status``, ``value`` (the primary
    metric on validation), ``steps``, ``chosen`` and ``reason``."""
    return pd.DataFrame(
        list(_sweep_rows(record)),
        columns=["task", "seed", "learning_rate", "status", "value", "steps", "chosen", "reason"],
    )


def _sweep_rows(record: TrialRecord) -> Iterator[tuple[Any, ...]]:
    for measured in record.measurements:
        data = measured.payload
        for entry in data["sweep"]:
            yield (
                data["task"],
                measured.seed,
                float(entry["learning_rate"]),
                entry["status"],
                _number(entry["validation"].get(data["metric"])),
                entry["steps"],
                entry["learning_rate"] == data["learning_rate"],
                str(entry.get("reason") or ""),
            )


def versions_of(record: TrialRecord) -> dict[str, str]:
    """Everything that made the trial's figures with its version; where seeds differ, all of them."""
    found: dict[str, dict[str, None]] = {}
    for measured in record.measurements:
        for name, version in measured.payload["versions"].items():
            found.setdefault(name, {})[str(version)] = None
    return {name: "; ".join(versions) for name, versions in sorted(found.items())}


def _number(value: Any) -> float:
    return nan if value is None else float(value)


LAYER_MEASURES: Mapping[str, tuple[str, str]] = {
    "state_bytes": ("State that decoding keeps", "bytes"),
    "kv_bytes": ("KV bytes", "bytes"),
    "traffic": ("State read and written by a decoded token", "bytes"),
    "decode_flops": ("FLOPs of a decoded token", "FLOP"),
    "prefill_flops": ("FLOPs of prefill", "FLOP"),
    "train_flops": ("FLOPs of training on one sequence", "FLOP"),
    "params": ("Parameters", ""),
}
"""Columns of `layer_costs_frame`, in words, and their units."""
