"""Ops are compared before they are timed, and whatever fails is a row with its reason."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bench_samples import SHAPE, ScriptedClock, sample_bench, sample_op, scaled
from torch import Tensor

from archsearch.bench.kernels import bench_case, bench_ops, ops_of
from archsearch.bench.op import TINY, Inputs, Outputs, Peer
from archsearch.bench.results.schema import OURS, KernelRow
from archsearch.errors import KernelUnavailableError, SpecError
from archsearch.registry import Registry


def only(rows: list[KernelRow]) -> KernelRow:
    (row,) = rows
    return row


def broken(error: Exception) -> object:
    def run(inputs: Inputs) -> Outputs:
        raise error

    return run


def test_a_right_op_is_timed_beside_its_bound() -> None:
    row = only(bench_case(sample_op(), SHAPE, "forward", sample_bench()))
    assert (row.status, row.contender, row.form, row.timed) == ("measured", OURS, "chunkwise", "wall clock")
    assert row.measured is not None
    assert row.measured.bound_ms == pytest.approx(4.0)  # 4 MB at 1 GB/s is more than 1 GFLOP at 1 TFLOP/s
    assert row.measured.fraction == pytest.approx(0.5)
    assert row.measured.tbps == pytest.approx(4e6 / 0.008 / 1e12)
    assert row.measured.ms.median == pytest.approx(8.0)


def test_training_counts_three_times_the_operations_and_more_traffic() -> None:
    row = only(bench_case(sample_op(), SHAPE, "forward+backward", sample_bench()))
    assert row.measured is not None
    assert row.measured.flops == 3e9
    assert row.measured.moved_bytes == 3 * 3e6 + 2 * 1e6


def test_the_median_and_the_extremes_are_of_the_repeats_alone() -> None:
    clock = ScriptedClock(9.0, 0.02, 0.010, 0.012, 0.011, 0.5, 0.009)
    row = only(bench_case(sample_op(), SHAPE, "forward", sample_bench(clock)))
    assert row.measured is not None
    ms = row.measured.ms
    assert (ms.median, ms.low, ms.high, ms.repeats) == (11.0, 9.0, 500.0, 5)


@pytest.mark.parametrize("phase", ["forward", "forward+backward"])
def test_a_wrong_output_gets_no_figure(phase: str) -> None:
    clock = ScriptedClock(1.0)
    row = only(bench_case(sample_op(lambda x: scaled(x, 2.1)), SHAPE, phase, sample_bench(clock)))
    assert (row.status, row.measured, clock.calls) == ("wrong", None, 0)
    assert "output 0 is off by 0.05" in row.reason


def test_a_wrong_gradient_gets_no_figure() -> None:
    class Detached(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return 1.1 * grads[0]

    def run(inputs: Inputs) -> Outputs:
        return scaled({**inputs, "v": Detached.apply(inputs["v"])})

    row = only(bench_case(sample_op(run), SHAPE, "forward+backward", sample_bench()))
    assert (row.status, row.reason) == ("wrong", "d_v is off by 0.1, allowed are 0.008")


def test_values_that_are_not_finite_are_wrong() -> None:
    row = only(bench_case(sample_op(lambda x: (x["q"] / 0,)), SHAPE, "forward", sample_bench()))
    assert row.status == "wrong"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory", "OutOfMemoryError: CUDA out of memory"),
        (KernelUnavailableError("no row"), "unavailable", "no row"),
        (ImportError("No module named fla"), "unavailable", "ImportError: No module named fla"),
        (RuntimeError("refused on Hopper\nsecond line"), "failed", "RuntimeError: refused on Hopper"),
    ],
    ids=["memory", "kernel", "import", "other"],
)
def test_what_fails_is_a_row_with_its_reason(error: Exception, status: str, reason: str) -> None:
    row = only(bench_case(sample_op(broken(error)), SHAPE, "forward", sample_bench()))  # type: ignore[arg-type]
    assert row.status == status
    assert row.reason.startswith(reason)
    assert "second line" not in row.reason


def test_inputs_that_do_not_fit_are_a_row() -> None:
    op = dataclasses.replace(sample_op(), inputs=lambda shape, draw: broken(torch.OutOfMemoryError("too large"))({}))  # type: ignore[operator]
    row = only(bench_case(op, SHAPE, "forward", sample_bench()))
    assert (row.status, row.reason) == ("out of memory", "OutOfMemoryError: too large")


def peer(name: str, run: object = scaled, **others: object) -> Peer:
    return Peer(name=name, prepare=lambda inputs: (f"{name} 1.0", run), **others)  # type: ignore[arg-type, return-value]


def refusing(inputs: Inputs) -> tuple[str, object]:
    raise KernelUnavailableError("not installed")


def test_peers_stand_behind_ours_and_are_compared_too() -> None:
    other = peer("other", lambda x: (x["q"] * 5,), reference=lambda x: (x["q"] * 5,))
    peers = [Peer(name="absent", prepare=refusing), peer("wrong", lambda x: scaled(x, 3.0)), peer("good"), other]  # type: ignore[arg-type]
    rows = bench_case(sample_op(peers=peers), SHAPE, "forward", sample_bench(peers=True))
    assert [(row.contender, row.status) for row in rows] == [
        (OURS, "measured"),
        ("absent", "unavailable"),
        ("wrong", "wrong"),
        ("good", "measured"),
        ("other", "measured"),
    ]
    assert [row.form for row in rows][2:] == ["wrong 1.0", "good 1.0", "other 1.0"]
    assert len(bench_case(sample_op(peers=peers), SHAPE, "forward", sample_bench())) == 1


def test_gradients_do_not_accumulate_from_call_to_call() -> None:
    seen: list[Tensor | None] = []

    def run(inputs: Inputs) -> Outputs:
        seen.extend(x.grad for x in inputs.values())
        return scaled(inputs)

    bench_case(sample_op(run), SHAPE, "forward+backward", sample_bench())
    assert len(seen) > 10
    assert not any(grad is not None for grad in seen)


def test_rows_whose_choice_rounding_moves_are_left_out_but_not_many() -> None:
    shape = type(SHAPE)(batch=1, tokens=200, heads=4, kv_heads=2, head_dim=8)

    def moving(count: int) -> object:
        def run(inputs: Inputs) -> Outputs:
            (out,) = scaled(inputs)
            changed = torch.cat([out[:, :count] * -1, out[:, count:]], 1)
            return (changed,)

        return run

    few = only(bench_case(sample_op(moving(2), agreeing=0.97), shape, "forward+backward", sample_bench()))  # type: ignore[arg-type]
    assert few.measured is not None
    assert few.measured.agreeing == pytest.approx(0.99)
    many = only(bench_case(sample_op(moving(10), agreeing=0.97), shape, "forward", sample_bench()))  # type: ignore[arg-type]
    assert many.reason == "5.0% of the rows differ, more than rounding moves"
    assert only(bench_case(sample_op(moving(2)), shape, "forward", sample_bench())).status == "wrong"  # type: ignore[arg-type]


def test_the_first_shapes_of_all_ops_come_first_and_what_is_late_is_listed() -> None:
    other = type(SHAPE)(batch=2, tokens=6, heads=4, kv_heads=2, head_dim=8)
    ops = [sample_op(name="a", shapes=[SHAPE, other]), sample_op(name="b")]
    times = iter([0.0, 0.0, 0.0, 0.0, 500.0, 500.0])
    bench = sample_bench(minutes=5.0, now=lambda: next(times), started=0.0)
    found = [(row.op, row.batch, row.phase, row.status) for row in bench_ops(ops, TINY, bench)]
    assert found == [
        ("a", 1, "forward", "measured"),
        ("a", 1, "forward+backward", "measured"),
        ("b", 1, "forward", "measured"),
        ("b", 1, "forward+backward", "measured"),
        ("a", 2, "forward", "out of time"),
        ("a", 2, "forward+backward", "out of time"),
    ]


def test_only_chooses_by_name(registry: Registry) -> None:
    assert {op.name for op in ops_of(registry, "kda")} == {"kda"}
    with pytest.raises(SpecError, match=r'"kdb": no op is named so; there are .*kda'):
        ops_of(registry, "kdb")
