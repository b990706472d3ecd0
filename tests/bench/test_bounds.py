"""Bounds: what launches can reach by their machine code, beside the op's own bound and beside what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bound_samples import sample_bound, sample_launch

from archsearch.bench.bounds import LaunchBound, OpBound, rank_correlation
from archsearch.bench.bounds.counts import asked
from archsearch.bench.choices import stand_in_choices
from archsearch.bench.results.schema import Environment, KernelRow, Measured, Rates, Results, Spread
from archsearch.bench.results.work import Shape
from archsearch.errors import KernelUnavailableError
from archsearch.kernels.launches import Launch, listed_launches

BOUND = """
import json, torch
from kernel_samples import product
from archsearch.bench.bounds import bound_launches
from archsearch.bench.bounds.tracing import trace
from archsearch_plugins.sliding.bench import bench_ops
from archsearch.bench.results.work import Shape
from archsearch.kernels.launches import listed_launches
from archsearch.kernels.machine_code.cards import CARDS
a, b = (torch.empty(64, 256, dtype=torch.bfloat16) for _ in range(2))
out = torch.empty(64, 256)
with listed_launches("sm_90") as found:
    product[(300,)](a, b, out, 256, 256, M=64, MATRIX=True, TURNED=False, num_warps=4, num_stages=2)
known = {}
[bound, again] = bound_launches([*found, *found], "toy", CARDS["sm_90"], None, known)
[op] = [op for op in bench_ops() if op.sizes == {"window": 4096}]
launches = trace(op, Shape(batch=1, tokens=65536, heads=16, kv_heads=16, head_dim=128), "forward+backward", "sm_90")
print(json.dumps({
    "flops": bound.flops, "passes": bound.passes, "asked": bound.asked_bytes, "moved": bound.moved_bytes,
    "waves": bound.waves, "resident": bound.resident, "uncertain": bound.uncertain,
    "followed": len(known), "alike": bound is again,
    "launches": [(each.fn.__name__, each.grid) for each in launches],
}))
"""


def test_a_launch_is_listed_compiled_and_followed_without_a_card() -> None:
    folder = Path(__file__).parents[1] / "kernels"
    environ = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", BOUND], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["flops"] == 300 * 4 * 2 * 64**3
    assert (found["followed"], found["alike"]) == (1, True)
    assert not found["uncertain"]
    assert found["waves"] == -(-300 // (132 * found["resident"]))
    assert 0 < found["moved"] <= 2 * 64 * 256 * 2 + 64 * 256 * 4
    assert found["asked"] >= 300 * (64 * 256 * 2 + 64 * 64 * 4)
    assert found["launches"] == [
        ["attention_forward", [8192, 1, 1]],
        ["queries_backward", [8192, 1, 1]],
        ["keys_backward", [8192, 1, 1]],
    ]


def test_launches_are_alike_by_numbers_sizes_and_the_integers_that_are_known() -> None:
    def mark(values: torch.Tensor, *unknown: torch.Tensor) -> str:
        arguments = {"x": values, "n": 3}
        launch = Launch(fn=None, grid=(1, 1, 1), arguments=arguments, num_warps=4, num_stages=2)
        return asked(launch, {x.data_ptr() for x in unknown})

    some, other = torch.tensor([1, 2, 3]), torch.tensor([1, 2, 4])
    assert mark(some) == mark(some.clone())
    assert mark(some) != mark(other)
    assert mark(some) != mark(some[:2])
    assert mark(some, some) == mark(other, other)
    assert mark(some.float()) == mark(other.float())


def test_interpreted_kernels_are_not_listed() -> None:
    with pytest.raises(KernelUnavailableError, match="TRITON_INTERPRET is set"), listed_launches("sm_90"):
        pass


def bound(tokens: int, *launches: LaunchBound, op_seconds: float = 1e-3, arch: str = "sm_90") -> OpBound:
    shape = Shape(batch=1, tokens=tokens, heads=8, kv_heads=8, head_dim=64)
    return sample_bound(*launches, op="kda", phase="forward", shape=shape, arch=arch, op_seconds=op_seconds)


def results(times: dict[int, float], card: str = "H200", arch: str = "sm_90", date: str = "2026-01-01") -> Results:
    environment = dict.fromkeys(("driver", "torch", "triton", "ptxas", "python", "archsearch"), "1")
    rows = [
        KernelRow(
            op="kda",
            phase="forward",
            contender="archsearch",
            form="triton",
            batch=1,
            tokens=tokens,
            heads=8,
            kv_heads=8,
            head_dim=64,
            status="measured",
            measured=Measured(
                ms=Spread(median=ms, low=ms, high=ms, repeats=1),
                flops=1.0,
                done_flops=None,
                moved_bytes=1.0,
                bound_ms=1.0,
                fraction=0.5,
                tflops=1.0,
                tbps=1.0,
                error=0.0,
            ),
        )
        for tokens, ms in times.items()
    ]
    rates = Rates(copy_bytes_per_second=1.0, matmul_flops_per_second=1.0)
    where = Environment(card=card, arch=arch, commit=None, date=date, **environment)
    return Results(kind="kernels", environment=where, ceilings=rates, kernels=tuple(rows))


def test_an_op_is_short_where_its_launches_take_more_than_three_times_its_bound() -> None:
    near, far = (
        bound(64, sample_launch(2.9e-3)),
        bound(64, sample_launch(1e-3), sample_launch(3e-3, "states"), sample_launch(1e-4, "solve")),
    )
    assert (near.short, far.short) == (False, True)
    assert far.share == pytest.approx(1e-3 / 4.1e-3)
    assert [one.kernel for one in far.worst] == ["states", "forward"]
    assert far.worst[0].limit == "cache"
    assert far.worst[0].reason.startswith("asks L2 for 8.00 GB, 2.0 times what it moves; 100 programs, 2 an SM")


def test_bounds_are_ordered_against_what_was_measured_at_the_same_shapes() -> None:
    bounds = [bound(tokens, sample_launch(tokens * 1e-6)) for tokens in (64, 128, 256, 512)]
    alike = {"H200": (pytest.approx(1.0), 3)}
    assert rank_correlation(bounds, [results({64: 1.0, 128: 2.0, 256: 9.0})]) == alike
    assert rank_correlation(bounds, [results({64: 3.0, 128: 2.0, 256: 1.0})]) == {"H200": (pytest.approx(-1.0), 3)}
    assert rank_correlation(bounds, [results({64: 1.0, 128: 2.0, 1024: 3.0})]) == {}
    newer = results({64: 1.0}, date="2026-02-01")
    assert rank_correlation(bounds, [newer, results({64: 5.0, 128: 2.0, 256: 3.0})]) == alike


def test_the_times_of_a_card_are_compared_with_the_bounds_of_its_architecture() -> None:
    """A card that measures the other way round, or another architecture's bounds, change nothing of it."""
    times = {64: 1.0, 128: 2.0, 256: 3.0}
    bounds = [bound(tokens, sample_launch(tokens * 1e-6)) for tokens in times]
    slower = [bound(tokens, sample_launch(1.0 / tokens), arch="sm_80") for tokens in times]
    reversed_ = {tokens: 4.0 - ms for tokens, ms in times.items()}
    files = [results(times), results(reversed_, card="H100", date="2026-03-01"), results(times, "A100", "sm_80")]
    assert rank_correlation([*bounds, *slower], files) == {
        "H200": (pytest.approx(1.0), 3),
        "H100": (pytest.approx(-1.0), 3),
        "A100": (pytest.approx(-1.0), 3),
    }
    assert rank_correlation(bounds, [results({64: 1.0, 128: 2.0}), results({256: 3.0}, card="H100")]) == {}


def test_blocks_that_stand_in_for_a_choice_lie_before_the_own_one() -> None:
    own = torch.tensor([0, 5, 12], dtype=torch.int32)
    first = torch.tensor([0, 0, 10], dtype=torch.int32)
    chosen = torch.empty(3, 2, 50, dtype=torch.int32)
    assert stand_in_choices({"chosen": chosen, "owns": own, "firsts": first}) == [chosen.data_ptr()]
    assert chosen[0].unique().tolist() == [-1]
    assert chosen[1].unique().tolist() == [0, 1, 2, 3, 4]
    assert chosen[2].unique().tolist() == [10, 11]
