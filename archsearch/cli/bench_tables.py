"""What was measured as lines and tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from archsearch.cli.output import table

if TYPE_CHECKING:
    from rich.table import Table

    from archsearch.bench.results.schema import KernelRow, ModelRow, Results
    from archsearch.bench.results.targets import Verdict


def heading(results: Results) -> str:
    """The device, the versions and the ceilings of a run, and whether it has come to its end."""
    env, rates = results.environment, results.ceilings
    source = env.commit or "no commit"
    count = len(results.kernels) + len(results.models)
    cut = "" if results.complete else f"; not complete (the run was ended, or goes on): {count} rows"
    return (
        f"{env.card} ({env.arch}), driver {env.driver}, torch {env.torch}, Triton {env.triton}, ptxas {env.ptxas}; "
        f"archsearch {env.archsearch} at {source}; {env.date}\n"
        f"measured: copy {rates.copy_bytes_per_second / 1e12:.3g} TB/s, "
        f"matrix product {rates.matmul_flops_per_second / 1e12:.3g} TFLOP/s{cut}"
    )


def row_line(row: KernelRow | ModelRow) -> str:
    """One row of either kind as one line."""
    from archsearch.bench.results.schema import ModelRow

    return model_line(row) if isinstance(row, ModelRow) else kernel_line(row)


def kernel_line(row: KernelRow) -> str:
    """One row as one line."""
    head = f"{row.op} {row.phase} {row.shape}, {row.contender} {row.form}".rstrip()
    if row.measured is None:
        return f"{head}: {row.status}: {row.reason}"
    found = row.measured
    note = f" ({row.reason})" if row.reason else ""
    return f"{head}: {milliseconds(row)}, {found.fraction:.1%} of the bound, off by {found.error:.1e}{note}"


def milliseconds(row: KernelRow) -> str:
    """Median and extremes."""
    if row.measured is None:
        return ""
    ms = row.measured.ms
    return f"{ms.median:.3g} ms ({ms.low:.3g} to {ms.high:.3g}, {ms.repeats} repeats)"


def kernel_cells(row: KernelRow, ours: KernelRow | None) -> Sequence[str]:
    """The cells of `KERNEL_COLUMNS`; the last is the time over ours, and what is to be said."""
    head = [row.op, row.phase, row.shape, f"{row.contender} {row.form}".strip()]
    found = row.measured
    if found is None:
        return [*head, "", "", "", "", "", f"{row.status}: {row.reason}"]
    over = row.reason
    if ours is not None and ours.measured is not None and ours is not row:
        over = f"{found.ms.median / ours.measured.ms.median:.2f} x ours {over}".rstrip()
    return [
        *head,
        f"{found.ms.median:.3g}",
        f"{found.ms.low:.3g} to {found.ms.high:.3g}",
        f"{found.tflops:.3g}",
        f"{found.tbps:.3g}",
        f"{found.fraction:.1%}",
        over,
    ]


KERNEL_COLUMNS = ("op", "phase", "shape", "by", ">ms", "spread", ">TFLOP/s", ">TB/s", ">of bound", "note")
MODEL_COLUMNS = ("pattern", "quantity", ">batch", ">context", ">measured", ">predicted", ">ratio", ">relative", "note")
TARGET_COLUMNS = ("target", "case", "wanted", "measured", "status", "reason")


def kernel_table(results: Results) -> Table:
    """Every row of a file of kernels."""
    ours = {(row.case, tuple(row.sizes.items())): row for row in results.kernels if row.contender == "archsearch"}
    rows = [kernel_cells(row, ours.get((row.case, tuple(row.sizes.items())))) for row in results.kernels]
    return table(KERNEL_COLUMNS, rows)


def model_table(results: Results) -> Table:
    """Every row of a file of models: measured over predicted, and relative to the first pattern's."""
    from archsearch.bench.results.frames import relative_errors

    relative = {id(row): error for row, error in relative_errors(results)}
    return table(MODEL_COLUMNS, [_model_cells(row, relative.get(id(row))) for row in results.models])


def target_table(verdicts: Sequence[Verdict]) -> Table:
    """Every target and what became of it."""
    cells = [(one.target, one.case, one.wanted, one.measured, one.status, one.reason) for one in verdicts]
    return table(TARGET_COLUMNS, cells)


def model_line(row: ModelRow) -> str:
    """One row as one line."""
    head = f"{row.pattern} {row.quantity} batch {row.batch} context {row.context:,}"
    if row.measured is None:
        return f"{head}: {row.status}: {row.reason}"
    predicted = "" if row.predicted is None else f", predicted {_amount(row, row.predicted)}"
    ratio = "" if row.ratio is None else f", ratio {row.ratio:.3g}"
    note = f" ({row.reason})" if row.reason else ""
    return f"{head}: {_amount(row, row.measured)}{_rate(row)}{predicted}{ratio}{note}"


def _model_cells(row: ModelRow, relative: float | None) -> Sequence[str]:
    head = [row.pattern, row.quantity, str(row.batch), f"{row.context:,}"]
    if row.measured is None:
        return [*head, "", "", "", "", f"{row.status}: {row.reason}"]
    return [
        *head,
        _amount(row, row.measured) + _rate(row),
        "" if row.predicted is None else _amount(row, row.predicted),
        "" if row.ratio is None else f"{row.ratio:.3g}",
        "" if relative is None else f"{relative:+.0%}",
        row.reason,
    ]


def _amount(row: ModelRow, value: float) -> str:
    from archsearch.units import format_quantity

    return format_quantity(value, unit="bytes") if row.quantity in ("state", "peak") else f"{value * 1e3:.4g} ms"


def _rate(row: ModelRow) -> str:
    """Tokens a second, of training and of prefill."""
    if row.quantity not in ("training", "prefill") or not row.measured:
        return ""
    return f", {row.batch * row.context / row.measured:,.0f} tokens/s"
