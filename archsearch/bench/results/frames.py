"""Frames of what was measured, for pages and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from archsearch.bench.results.schema import KernelRow, ModelRow, Results

KERNEL_COLUMNS = (
    "op",
    "phase",
    "shape",
    "by",
    "form",
    "status",
    "ms",
    "ms_low",
    "ms_high",
    "fraction_of_bound",
    "tflops",
    "tbps",
    "error",
    "reason",
    "card",
    "date",
)
MODEL_COLUMNS = (
    "pattern",
    "quantity",
    "batch",
    "context",
    "status",
    "measured",
    "predicted",
    "measured_over_predicted",
    "reason",
    "card",
    "date",
)


def kernel_frame(results: Iterable[Results]) -> pd.DataFrame:
    """One row an op, phase, shape and contender, `KERNEL_COLUMNS`; what was not measured has its reason."""
    rows = [_kernel(row, file) for file in results for row in file.kernels]
    return pd.DataFrame(rows, columns=list(KERNEL_COLUMNS))


def model_frame(results: Iterable[Results]) -> pd.DataFrame:
    """One row a pattern, quantity, batch and context, `MODEL_COLUMNS`; seconds or bytes."""
    rows = [_model(row, file) for file in results for row in file.models]
    return pd.DataFrame(rows, columns=list(MODEL_COLUMNS))


def relative_errors(results: Results) -> Iterator[tuple[ModelRow, float]]:
    """Each figure's error of the cost model when its first pattern is taken as known: how far the predicted ratio to
    that pattern is from the measured one, 0.1 for a tenth too slow in truth. None where the first has no figure."""
    known = {_figure(row): row.ratio for row in results.models if row.pattern == results.models[0].pattern}
    for row in results.models:
        first = known.get(_figure(row))
        if row.ratio is not None and first is not None:
            yield row, row.ratio / first - 1.0


def _figure(row: ModelRow) -> tuple[str, int, int]:
    return row.quantity, row.batch, row.context


def _kernel(row: KernelRow, file: Results) -> dict[str, Any]:
    found = row.measured
    values = (
        (found.ms.median, found.ms.low, found.ms.high, found.fraction, found.tflops, found.tbps, found.error)
        if found is not None
        else (None,) * 7
    )
    return dict(
        zip(
            KERNEL_COLUMNS,
            (
                row.op,
                row.phase,
                row.shape,
                row.contender,
                row.form,
                row.status,
                *values,
                row.reason,
                file.environment.card,
                file.environment.date,
            ),
            strict=True,
        )
    )


def _model(row: ModelRow, file: Results) -> dict[str, Any]:
    return {
        "pattern": row.pattern,
        "quantity": row.quantity,
        "batch": row.batch,
        "context": row.context,
        "status": row.status,
        "measured": row.measured,
        "predicted": row.predicted,
        "measured_over_predicted": row.ratio,
        "reason": row.reason,
        "card": file.environment.card,
        "date": file.environment.date,
    }
