"""``kernels model``: its tables, its JSON, what it writes and what it refuses; the bounds are stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bound_samples import sample_bound, sample_launch
from results_samples import kernel_results, kernel_row
from typer.testing import Result

from archsearch.bench.bounds import OpBound
from archsearch.bench.op import BenchOp
from archsearch.bench.results import write_results
from archsearch.bench.results.work import Shape
from archsearch.errors import ArchsearchError, SpecError
from archsearch.evidence.bounds import BoundRecord, BoundRecords, digest_of_kernels, stale_bounds
from archsearch.evidence.compiled import Report
from archsearch.kernels.machine_code.cards import Card
from archsearch.registry import Registry

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]
ACCEPTED = ROOT / "tests" / "kernels" / "accepted.json"
STORED = ROOT / "benchmarks" / "bounds"
DIGESTS = {"linear_attention states D=64 sm_90": "a", "linear_attention states D=64 sm_80": "b", "gates x sm_90": "c"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> list[tuple[str, Shape, str, str]]:
    """The cases that were modelled: a forward reaches half of its bound, all else a tenth; digests are stand-ins."""
    found: list[tuple[str, Shape, str, str]] = []

    def bound_op(op: BenchOp, shape: Shape, phase: str, card: Card, cache: Path) -> OpBound:
        found.append((op.name, shape, phase, card.arch))
        launches = (sample_launch(4e-3, "states"), sample_launch(1e-3, "outputs"))
        op_seconds = 2.5e-3 if phase == "forward" else 5e-4
        return sample_bound(*launches, op=op.name, phase=phase, shape=shape, arch=card.arch, op_seconds=op_seconds)

    monkeypatch.setattr("archsearch.bench.bounds.bound_op", bound_op)
    monkeypatch.setattr("archsearch.registry.load_registry", lambda: registry)
    monkeypatch.setattr("archsearch.bench.builds.digests", lambda registry, archs: DIGESTS)
    monkeypatch.setattr("archsearch.kernels.machine.compiler_versions", lambda: ("3.7.1", "12.8"))
    return found


SMALL = ("kernels", "model", "--op", "gla", "--shape", "1x128x4/2x64")


def test_every_phase_of_an_op_at_the_shape_that_is_asked_for(run: Run, asked: list[Any]) -> None:
    data = json.loads(run(*SMALL, "--arch", "sm_90", "--arch", "sm_80", "--json").stdout)["ops"]
    shape = Shape(batch=1, tokens=128, heads=4, kv_heads=2, head_dim=64)
    assert [case[1:] for case in asked[:2]] == [(shape, "forward", "sm_90"), (shape, "forward+backward", "sm_90")]
    assert [(one["arch"], one["phase"], one["share"]) for one in data] == [
        ("sm_90", "forward", 0.5),
        ("sm_90", "forward+backward", 0.1),
        ("sm_80", "forward", 0.5),
        ("sm_80", "forward+backward", 0.1),
    ]
    assert data[0]["kernels_ms"] == 5.0
    (longest, _) = data[0]["launches"]
    assert (longest["kernel"], longest["ms"], longest["limit"], longest["by"]) == (
        "states",
        4.0,
        "cache",
        {"memory": 2.0, "cache": 4.0},
    )


def test_for_people_what_falls_short_is_counted_and_nothing_is_called_measured(run: Run, asked: list[Any]) -> None:
    result = run(*SMALL, "--short")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    assert "10%" in told
    assert "50%" not in told
    assert "cannot reach a third of their bound. Nothing here was measured on a card." in told
    assert "Fewer than three of them were measured on one card: the order is unproven" in told


def test_the_order_is_compared_with_what_a_card_measured(
    run: Run, asked: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a card that measures just the other way round."""

    def bound_op(op: BenchOp, shape: Shape, phase: str, card: Card, cache: Path) -> OpBound:
        launch = sample_launch(shape.tokens * 1e-6)
        return sample_bound(launch, op=op.name, phase=phase, shape=shape, arch=card.arch, op_seconds=1e-6)

    monkeypatch.setattr("archsearch.bench.bounds.bound_op", bound_op)
    rows = [kernel_row("gla", 1e3 / tokens, tokens=tokens, heads=4) for tokens in (64, 128, 256)]
    shapes = [f"--shape=1x{row.tokens}x4{f'/{row.kv_heads}' * (row.kv_heads != 4)}x{row.head_dim}" for row in rows]
    file = tmp_path / "h200.json"
    write_results(kernel_results(*rows), file)
    told = run("kernels", "model", "--op", "gla", *shapes, "--results", str(file)).stdout
    assert "Rank correlation with 3 times that NVIDIA H200 measured: -1.00" in " ".join(told.split())
    both = run(
        "kernels", "model", "--op", "gla", *shapes, "--results", str(file), "--results", str(tmp_path / "no.json")
    )
    assert "Rank correlation with 3 times" in " ".join(both.stdout.split())
    assert "no.json: cannot be read" in both.output


def test_an_op_is_listed_compiled_and_followed_by_the_command_as_it_is(tmp_path: Path) -> None:
    """No stand-in: by ptxas, in a process without the interpreter."""
    words = ["kernels", "model", "--op", "unit length", "--shape", "1x8192x16x128", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "archsearch", *words],
        env={**os.environ, "TRITON_INTERPRET": "0", "ARCHSEARCH_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    forward, both = json.loads(done.stdout)["ops"]
    assert [launch["kernel"] for launch in forward["launches"]] == ["unit_forward"]
    assert [launch["kernel"] for launch in both["launches"]] == ["unit_forward", "unit_backward"]
    moved_seconds = 2 * 2 * 8192 * 16 * 128 / 4.3e12  # in once and out once, in bfloat16, at the speed of a copy
    assert forward["op_ms"] == pytest.approx(1e3 * moved_seconds, rel=0.2)
    assert forward["kernels_ms"] >= forward["op_ms"]
    (launch,) = forward["launches"]
    assert launch["ms"] == max(launch["by"].values())
    assert 0 < launch["registers"] <= 255
    assert not launch["uncertain"]


def test_what_is_written_is_of_its_kernels_and_others_stay(run: Run, asked: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "bounds.json"
    assert run(*SMALL, "--write", str(file)).exit_code == 0
    first = BoundRecords.read(file).records
    assert {record.phase for record in first} == {"forward", "forward+backward"}
    assert {record.kernels for record in first} == {digest_of_kernels(DIGESTS, "linear_attention", "sm_90")}
    assert run(*SMALL, "--short", "--arch", "sm_80", "--write", str(file)).exit_code == 0
    assert len(BoundRecords.read(file).records) == len(first) + len(first) // 2
    assert run(*SMALL, "--short", "--write", str(file)).exit_code == 0  # what falls short no more is not kept as if
    assert {record.phase for record in BoundRecords.read(file).records} == {"forward+backward"}


def test_a_step_that_is_named_as_its_sequences_is_of_its_own_kernels(
    run: Run, asked: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "bounds.json"
    run("kernels", "model", "--op", "kda", "--shape", "1x128x4x64", "--write", str(file))
    assert {record.phase: record.table for record in BoundRecords.read(file).records} == {
        "forward": "linear_attention",
        "forward+backward": "linear_attention",
        "decode": "linear_attention_step",
    }


def test_what_is_of_other_kernels_is_named_with_the_remedy(
    run: Run, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bounds.json"
    run(*SMALL, "--short", "--arch", "sm_90", "--arch", "sm_80", "--write", str(file))
    assert json.loads(run("kernels", "model", "--check", str(file), "--json").stdout)["stale"] == []
    changed = {**DIGESTS, "linear_attention states D=64 sm_80": "other", "gates x sm_90": "other"}
    monkeypatch.setattr("archsearch.bench.builds.digests", lambda registry, archs: changed)
    result = run("kernels", "model", "--check", str(file))
    assert result.exit_code == 1
    told = " ".join(result.stdout.split())
    assert "sm_80: the kernels of linear_attention have changed since: archsearch kernels model --op gla" in told
    assert "sm_90: the kernels" not in told


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        (("--shape", "8192"), SpecError, "--shape 8192: write batch x tokens x heads x head dim"),
        (("--arch", "sm_75"), SpecError, "--arch sm_75: cards are known of sm_90, sm_80"),
        (("--op", "nobody"), SpecError, '"nobody": no op is named so'),
        (("--op", "unit length"), SpecError, '--op "unit length": has no kernels, or no shape unless in --full'),
        (("--results", "/none/h200.json"), SpecError, "/none/h200.json: cannot be read"),
        (("--check", "/none/bounds.json"), SpecError, "holds no bounds of ops"),
        (("--write", "/proc/none/bounds.json", "--op", "kda"), SpecError, "cannot write /proc/none/bounds.json"),
    ],
)
def test_what_cannot_be_modelled_is_refused_in_a_sentence(
    run: Run, asked: list[Any], arguments: tuple[str, ...], error: type[ArchsearchError], why: str
) -> None:
    result = run("kernels", "model", *arguments)
    assert isinstance(result.exception, error)
    assert why in str(result.exception)


def test_stored_bounds_are_of_todays_kernels() -> None:
    """Renewed by the commands that are named; the accepted report is of today's kernels, as a test of it says."""
    digests = {compiled.label: compiled.digest for compiled in Report.read(ACCEPTED).records}
    stored = [record for file in sorted(STORED.glob("sm_*.json")) for record in BoundRecords.read(file).records]
    held = {arch: {record.op for record in stored if record.arch == arch} for arch in ("sm_90", "sm_80")}
    assert held["sm_90"] >= {"kda", "gated-deltanet", "nsa", "comba", "rwkv7"}
    assert held["sm_80"] >= {"kda", "gated-deltanet", "comba", "rwkv7"}
    assert stale_bounds(stored, digests) == []
    renewed = BoundRecord(**{**stored[0].model_dump(), "kernels": "0" * 16})
    assert len(stale_bounds([renewed], digests)) == 1
