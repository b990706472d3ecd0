"""Rows and result files, for the tests of their readers."""

from __future__ import annotations

from typing import Any

from archsearch.bench.results.schema import OURS, Environment, KernelRow, Measured, ModelRow, Rates, Results, Spread

ENVIRONMENT = Environment(
    card="NVIDIA H200",
    arch="sm_90",
    driver="580",
    torch="2.11.0",
    triton="3.6.0",
    ptxas="13.0",
    python="3.12.3",
    archsearch="0.1.0",
    commit="abc",
    date="2026-11-21",
)


def figures(ms: float, *, fraction: float = 0.5, moved_bytes: float = 2e9) -> Measured:
    return Measured(
        ms=Spread(median=ms, low=0.9 * ms, high=1.2 * ms, repeats=5),
        flops=1e12,
        done_flops=None,
        moved_bytes=moved_bytes,
        bound_ms=fraction * ms,
        fraction=fraction,
        tflops=1.0,
        tbps=1.0,
        error=1e-3,
    )


def kernel_row(
    op: str = "kda",
    ms: float | None = 1.0,
    *,
    phase: str = "forward",
    contender: str = OURS,
    tokens: int = 32768,
    batch: int = 1,
    heads: int = 16,
    fraction: float = 0.5,
    moved_bytes: float = 2e9,
    **others: Any,
) -> KernelRow:
    """A measured row, or for no `ms` one that failed."""
    found: dict[str, Any] = {"status": "failed", "reason": "RuntimeError: refused"}
    if ms is not None:
        found = {"status": "measured", "measured": figures(ms, fraction=fraction, moved_bytes=moved_bytes)}
    return KernelRow(
        op=op,
        phase=phase,
        contender=contender,
        form="triton",
        batch=batch,
        tokens=tokens,
        heads=heads,  # type: ignore[arg-type]
        kv_heads=heads,
        head_dim=128,
        **(found | others),
    )


def model_row(pattern: str, quantity: str, measured: float, predicted: float, context: int = 1048576) -> ModelRow:
    return ModelRow(
        pattern=pattern,
        quantity=quantity,
        batch=1,
        context=context,
        status="measured",
        measured=measured,  # type: ignore[arg-type]
        predicted=predicted,
    )


def kernel_results(*rows: KernelRow, **environment: str) -> Results:
    return Results(
        kind="kernels",
        environment=ENVIRONMENT.model_copy(update=environment),
        kernels=rows,
        ceilings=Rates(copy_bytes_per_second=4.3e12, matmul_flops_per_second=7.9e14),
    )


def model_results(*rows: ModelRow, d_model: int = 2048) -> Results:
    return kernel_results().model_copy(
        update={"kind": "model", "models": rows, "model": {"d_model": d_model, "n_heads": 16, "n_kv_heads": 16}}
    )
