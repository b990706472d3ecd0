"""Architectures side by side: measured ones and typed ones, their costs, scores, and differences with their noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import pandas as pd

from archsearch.analysis.crossings import CostCurves, Crossing
from archsearch.analysis.differences import Difference, SeedNoise, difference, exact_difference, seed_noise
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import MEASURES, CostModel
from archsearch.errors import ArchsearchError, foreign_code
from archsearch.mixer import Resolver
from archsearch.storage import Store, TrialRecord
from archsearch.units import format_quantity

from .trial import arch_of, differing, layers_frame

TABLED = ("state_bytes", "kv_bytes", "decode_flops", "traffic", "prefill_flops", "params")
"""Costs of the table, in its order; "traffic" is what a decoded token reads and writes of the state."""

UNITS: Mapping[str, str] = {**MEASURES, "traffic": "bytes"}

WITH_UNITS: Mapping[str, str] = {"context": "context_tokens", "traffic": "traffic_bytes"}
"""Columns of curves that are downloaded, where their names alone do not tell the unit."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One architecture; ``record`` is None where it was typed in, ``arch`` where its costs cannot be counted here."""

    label: str
    pattern: str
    arch: ArchSpec | None
    layers: pd.DataFrame
    record: TrialRecord | None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A pattern that was typed in and cannot be read, or a trial that is not there, and why."""

    given: str
    error: str


def gather(
    store: Store, trials: Sequence[int], patterns: Sequence[str], model: ModelSpec, resolver: Resolver
) -> tuple[list[Compared], list[Refused]]:
    """The architectures of some trials, then those of some patterns on the backbone `model`, numbered from 1."""
    found: list[tuple[str, ArchSpec | None, Mapping[str, object], TrialRecord | None]] = []
    refused = []
    for trial in trials:
        try:
            record = store.trial(trial)
        except ArchsearchError as error:
            refused.append(Refused(given=f"trial {trial}", error=str(error)))
            continue
        found.append((record.pattern, arch_of(record, resolver), record.arch, record))
    for pattern in patterns:
        try:
            with foreign_code("the architecture that was typed", "parse"):
                typed = ArchSpec.parse(pattern, resolver, model)
                found.append((typed.pattern(resolver), typed, typed.to_json(), None))
        except ArchsearchError as error:
            refused.append(Refused(given=pattern, error=str(error)))
    compared: list[Compared] = []
    for number, (pattern, arch, stored, known) in enumerate(found, start=1):
        layers = layers_frame(stored, resolver)
        label = f"{number} · trial {known.id}" if known else f"{number} · typed in"
        layers = differing(layers, compared[0].layers) if compared else layers.assign(differs=False)
        compared.append(Compared(label=label, pattern=pattern, arch=arch, layers=layers, record=known))
    return compared, refused


def backbone_of(store: Store, trials: Sequence[int]) -> ModelSpec | None:
    """The backbone of the first of some trials that is there; a spec does not know the vocabulary of its tasks."""
    for trial in trials:
        try:
            return ModelSpec.read(store.trial(trial).arch["model"])
        except ArchsearchError:
            continue
    return None


def curves_of(compared: Sequence[Compared], resolver: Resolver) -> CostCurves:
    """The costs against context of those that can be costed, by their labels."""
    return CostCurves({item.label: item.arch for item in compared if item.arch is not None}, CostModel(resolver))


def cost_table(compared: Sequence[Compared], curves: CostCurves, context: int) -> pd.DataFrame:
    """A row a cost of `TABLED` at `context` tokens, a column an architecture, each with its ratio to the first."""
    known = [item for item in compared if item.arch is not None]
    rows = []
    for measure in TABLED:
        values = [curves.value(item.label, measure, context) for item in known]
        rows.append(
            {"cost": measure}
            | {
                item.label: _cost_cell(value, values[0], UNITS[measure], first=index == 0)
                for index, (item, value) in enumerate(zip(known, values, strict=True))
            }
        )
    return pd.DataFrame(rows)


def _cost_cell(value: float, first_value: float, unit: str, *, first: bool) -> str:
    shown = format_quantity(value, unit=unit)
    if first or not first_value:
        return shown
    ratio = value / first_value
    return f"{shown} ({ratio:,.0f}x)" if ratio >= 100 else f"{shown} ({ratio:.3g}x)"


DIFFERENCE_COLUMNS = ("task", "arch", "value", "seeds", "difference", "low", "high", "noise", "clear")
"""One row a task's metric and architecture: the test score over its seeds, and its difference from the first
architecture's with bounds of 95% confidence; NaN where nothing tells."""


def differences(compared: Sequence[Compared], noises: Mapping[str, SeedNoise]) -> pd.DataFrame:
    """`DIFFERENCE_COLUMNS` of those that were measured; `noises` by the stored name of the metric ("mqar.accuracy")."""
    measured = [item for item in compared if item.record is not None and item.record.measurements]
    rows = []
    for name, task in _metrics(measured).items():
        scores = [(item, scores_by_seed(item.record, name)) for item in measured if item.record is not None]
        base = scores[0][1]
        for index, (item, values) in enumerate(scores):
            gap = exact_difference(0.0, 0.0) if index == 0 else difference(base, values, noises.get(name))
            rows.append(
                (
                    task,
                    item.label,
                    _mean(values),
                    len(values),
                    *((None,) * 5 if index == 0 else _parts(gap)),
                )
            )
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def verdicts(table: pd.DataFrame) -> list[str]:
    """What each row of `differences` comes to, in words; nothing for the first architecture."""
    words = {True: "a clear difference", False: "may be luck"}
    return [
        "" if noise is None or noise != noise else "nothing tells" if noise == "unknown" else words[bool(clear)]
        for noise, clear in zip(table["noise"], table["clear"], strict=True)
    ]


def _parts(gap: Difference) -> tuple[float | None, float | None, float | None, str, bool]:
    low, high = ((end if isfinite(end) else None) for end in (gap.low, gap.high))
    return gap.mean, low, high, gap.noise, gap.clear


def _metrics(measured: Sequence[Compared]) -> dict[str, str]:
    """The stored names of the primary metrics with the tasks' full names, in the order of the trials."""
    return {
        f"{part.task}.{part.payload['metric']}": f"{part.payload['task']}, {part.payload['metric']}"
        for item in measured
        if item.record is not None
        for part in item.record.measurements
    }


def scores_by_seed(record: TrialRecord, name: str) -> dict[int, float]:
    """A trial's test scores under the stored name of a metric, by seed; NaN for a seed without one."""
    found = {}
    for part in record.measurements:
        if f"{part.task}.{part.payload['metric']}" == name:
            value = part.payload["test"].get(part.payload["metric"])
            found[part.seed] = float("nan") if value is None else float(value)
    return found


def _mean(values: Mapping[int, float]) -> float:
    return sum(values.values()) / len(values) if values else float("nan")


def metric_names(compared: Sequence[Compared]) -> tuple[str, ...]:
    """The stored names of the primary metrics of those that were measured."""
    return tuple(_metrics([item for item in compared if item.record is not None]))


def noise_of(values: pd.DataFrame) -> SeedNoise:
    """The noise of seeds pooled over trials, from rows with ``trial``, ``seed`` and ``value``."""
    groups = values.dropna(subset=["seed"]).groupby("trial")
    table = groups.agg(seeds=("seed", list), value_std=("value", "std"))
    whole = groups["value"].count() == groups["value"].size()
    return seed_noise(table[whole], "value")


def crossing_table(found: Sequence[Crossing]) -> pd.DataFrame:
    """Every crossing in words."""
    return pd.DataFrame(
        [(one.context, one.cheaper, one.dearer, format_quantity(one.value, unit=_unit(one.measure))) for one in found],
        columns=["from tokens", "costs less", "costs more", "at"],
    )


def _unit(measure: str) -> str:
    return UNITS[measure]
