"""What was measured as lines and tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archsearch.speed.results import KernelRow, Results


def heading(results: Results) -> str:
    """The device, the versions and the ceilings of a run."""
    env, rates = results.environment, results.ceilings
    source = env.commit or "no commit"
    return (
        f"{env.card} ({env.arch}), driver {env.driver}, torch {env.torch}, Triton {env.triton}, ptxas {env.ptxas}; "
        f"archsearch {env.archsearch} at {source}; {env.date}\n"
        f"measured: copy {rates.copy_bytes_per_second / 1e12:.3g} TB/s, "
        f"matrix product {rates.matmul_flops_per_second / 1e12:.3g} TFLOP/s"
    )


def kernel_line(row: KernelRow) -> str:
    """One row as one line."""
    head = f"{row.op} {row.phase} {row.shape}, {row.contender} {row.form}".rstrip()
    if row.measured is None:
        return f"{head}: {row.status}: {row.reason}"
    found = row.measured
    return f"{head}: {milliseconds(row)}, {found.fraction:.1%} of the bound, off by {found.error:.1e}"


def milliseconds(row: KernelRow) -> str:
    """Median and extremes."""
    if row.measured is None:
        return ""
    ms = row.measured.ms
    return f"{ms.median:.3g} ms ({ms.low:.3g} to {ms.high:.3g}, {ms.repeats} repeats)"


def kernel_cells(row: KernelRow, ours: KernelRow | None) -> Sequence[str]:
    """The cells of `KERNEL_COLUMNS`; the last is the time over ours."""
    head = [row.op, row.phase, row.shape, f"{row.contender} {row.form}".strip()]
    found = row.measured
    if found is None:
        return [*head, "", "", "", "", "", f"{row.status}: {row.reason}"]
    over = ""
    if ours is not None and ours.measured is not None and ours is not row:
        over = f"{found.ms.median / ours.measured.ms.median:.2f} x ours"
    return [
        *head, f"{found.ms.median:.3g}", f"{found.ms.low:.3g} to {found.ms.high:.3g}", f"{found.tflops:.3g}",
        f"{found.tbps:.3g}", f"{found.fraction:.1%}", over,
    ]  # fmt: skip


KERNEL_COLUMNS = ("op", "phase", "shape", "by", ">ms", "spread", ">TFLOP/s", ">TB/s", ">of bound", "note")
