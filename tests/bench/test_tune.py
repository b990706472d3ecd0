"""Candidates of a row: proven, timed, and the fastest kept for "auto"; by a clock that says what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from archsearch_plugins.sliding.triton.table import TABLE as WINDOW

from archsearch.bench.clock import WallClock
from archsearch.bench.kernels import TUNED, Bench, bench_case, ops_of
from archsearch.bench.op import FULL, TINY, BenchOp, Peer
from archsearch.bench.results.schema import OURS, Rates
from archsearch.bench.tune import calls_of, tune_row
from archsearch.evidence.proofs import Machine
from archsearch.evidence.tuned import TunedRows, keep_tuned
from archsearch.kernels import Config, Table
from archsearch.kernels.config import digest_of_configs, tables
from archsearch.kernels.forms import tuned
from archsearch.kernels.machine import machine_of
from archsearch.kernels.prove import Prover, Row
from archsearch.registry import Registry

KEY = ("sm_90", 64, 0)
MACHINE = Machine(card="H200", arch="sm_90", driver="580", torch="2.11.0", triton="3.6.0", ptxas="12.8")
ANSWER = """
import json, sys
wrong = json.loads(sys.argv[1])["candidate"] == 1
print(json.dumps({"cases": 1, "error": 0.0, "fault": "is off by 0.5" if wrong else ""}))
"""


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Row]:
    """Of a table with three candidates, of which the second computes something else."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    tiles = [{"forward": Config(tiles={"M": size})} for size in (16, 32, 64, 128)]
    table = Table(
        op="tuned_op", package="archsearch_plugins.full.triton", rows={KEY: tiles[0]}, candidates={KEY: tiles[1:]}
    )
    yield Row(table=table, key=KEY, dtype="bfloat16", device="cpu", machine=MACHINE)
    del tables[table.op]


def stopwatch(row: Row, by_tile: dict[int, float]) -> Callable[[Callable[[], object]], float]:
    """Seconds of a call by the tile that it runs with."""

    def seconds(call: Callable[[], object]) -> float:
        tile = call()
        assert isinstance(tile, int)
        return by_tile[tile]

    return seconds


def tile_of(row: Row) -> Callable[[], object]:
    return lambda: row.table.row(KEY)["forward"].tiles["M"]


@pytest.mark.parametrize(
    ("by_tile", "best"),
    [
        ({16: 1.0, 32: 0.9, 128: 0.5}, 2),
        ({16: 1.0, 32: 0.8, 128: 0.9}, 0),
        ({16: 1.0, 32: 0.99, 128: 2.0}, None),
    ],
    ids=["the-last", "the-first", "gains-too-little"],
)
def test_the_fastest_of_those_that_are_right_is_kept(row: Row, by_tile: dict[int, float], best: int | None) -> None:
    calls = [tile_of(row), tile_of(row)]
    told: list[str] = []
    found = tune_row(row, calls, Prover(command=("-c", ANSWER)), stopwatch=stopwatch(row, by_tile), tell=told.append)
    assert found is not None
    assert told == ["tuned_op sm_90 D=64 bfloat16 candidate 1 is left out: is off by 0.5"]
    assert found.config == row.table.digest(KEY, best)
    assert len(found.seconds) == 3  # the wrong one was never timed
    assert found.seconds[""] == (1.0, 1.0)
    keep_tuned(found)
    assert tuned(row.table, KEY, MACHINE) == best
    assert row.table.candidate(KEY) is None
    other = Machine(card="A100", arch="sm_90", driver="580", torch="2.11.0", triton="3.6.0", ptxas="12.8")
    assert tuned(row.table, KEY, other) is None


WRONG = """
import json, sys
asked = json.loads(sys.argv[1])
wrong = [asked["candidate"], asked["dtype"]] in {wrong}
print(json.dumps({"cases": 1, "error": 0.0, "fault": "is off by 0.5" if wrong else ""}))
"""


@pytest.mark.parametrize(
    ("wrong", "timed", "best"),
    [
        ([[None, "bfloat16"]], {0, 1, 2}, 1),
        ([[1, "float32"]], {None, 0, 2}, 2),
        ([[number, "bfloat16"] for number in (None, 0, 1, 2)], set(), None),
    ],
    ids=["the-tables-own", "in-the-other-dtype", "all"],
)
def test_nothing_is_timed_that_is_not_right_in_every_dtype_that_it_would_run_in(
    row: Row, wrong: list[list[object]], timed: set[int | None], best: int | None
) -> None:
    """The table's own configurations neither: a row of which they are wrong here runs with another."""
    ran: set[object] = set()

    def noting(call: Callable[[], object]) -> float:
        ran.add(call())
        return stopwatch(row, {16: 2.0, 32: 1.99, 64: 1.0, 128: 1.5})(call)

    prover = Prover(command=("-c", WRONG.replace("{wrong}", repr(wrong))))
    found = tune_row(row, [tile_of(row)], prover, stopwatch=noting, dtypes=("bfloat16", "float32"))
    tiles = {None: 16, 0: 32, 1: 64, 2: 128}
    assert ran == {tiles[number] for number in timed}
    assert (found is None) == (not timed)
    if found is not None:
        assert found.seconds.keys() == {row.table.digest(KEY, number) for number in timed}
        keep_tuned(found)
        assert tuned(row.table, KEY, MACHINE) == best


def test_a_file_of_tuned_rows_that_cannot_be_read_is_put_aside_and_said(
    row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tuned.json").write_text("[]")
    assert tuned(row.table, KEY, MACHINE) is None
    keep_tuned()
    assert (tmp_path / "tuned.unreadable").read_text() == "[]"
    assert TunedRows.read(tmp_path / "tuned.json").records == ()
    assert "holds no tuned rows: it is put aside" in caplog.text


def test_a_candidate_runs_only_while_it_is_used(row: Row) -> None:
    with row.table.using(KEY, 2):
        assert tile_of(row)() == 128
    assert tile_of(row)() == 16


def test_the_ops_that_measure_a_table_run_its_rows(registry: Registry) -> None:
    calls = calls_of(ops_of(registry), WINDOW, ("sm_90", 16, 0), torch.device("cpu"), torch.float32)
    assert len(calls) == 3  # forwards, with the backward pass, and a step
    assert calls_of(ops_of(registry), WINDOW, ("sm_90", 32, 0), torch.device("cpu"), torch.float32) == []
    (out,) = calls[-1]()  # type: ignore[misc]
    assert out.isfinite().all()


def tuned_tables(registry: Registry) -> dict[str, list[BenchOp]]:
    """Of each table that ops measure, those ops."""
    ops: dict[str, list[BenchOp]] = {}
    for op in ops_of(registry):
        if op.table:
            ops.setdefault(op.table, []).append(op)
    return ops


def test_every_candidate_is_other_configurations_of_kernels_of_its_row(registry: Registry) -> None:
    for op in tuned_tables(registry):
        table = tables[op]
        assert table.candidates
        for key, candidates in table.candidates.items():
            assert all(set(configs) <= set(table.rows[key]) for configs in candidates)
            digests = {table.digest(key, number) for number in range(len(candidates))}
            assert len(digests - {digest_of_configs(table.rows[key])}) == len(candidates)


def test_every_table_has_candidates_where_it_is_measured_on_a_card(registry: Registry) -> None:
    for name, ops in tuned_tables(registry).items():
        widths = {op.row_width(shape.head_dim) for op in ops for shape in op.grids[FULL]}
        assert {arch for arch, width, _ in tables[name].candidates if width in widths} == {"sm_90", "sm_80"}, name


def test_each_op_of_a_row_is_timed_before_a_second_size_of_one(registry: Registry) -> None:
    timed: list[tuple[str, int]] = []

    def op_of(name: str, tokens: tuple[int, ...]) -> BenchOp:
        like = next(op for op in tuned_tables(registry)["window_attention"] if op.grids[TINY] and not op.step)
        shapes = [replace(like.grids[TINY][0], tokens=count) for count in tokens]
        run = partial(lambda name, inputs, impl: timed.append((name, inputs["q"].shape[1])), name)
        return replace(like, name=name, grids={TINY: shapes}, run=run, trained=())

    ops = [op_of("first", (4, 5, 6)), op_of("second", (7, 8))]
    for call in calls_of(ops, WINDOW, ("sm_90", 16, 0), torch.device("cpu"), torch.float32):
        call()
    assert timed == [("first", 4), ("second", 7), ("first", 5)]


@pytest.fixture
def window_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """A row of the window's table on this machine, of which an empty cache says nothing."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    machine = machine_of(torch.device("cpu"))
    assert machine is not None
    return Row(table=WINDOW, key=("sm_90", 16, 0), dtype="float32", device="cpu", machine=machine)


def test_bench_kernels_runs_nothing_that_failed_its_proof_here(registry: Registry, window_row: Row) -> None:
    """What else there is of the case is measured: an illegal access would have ended that too."""
    device = torch.device("cpu")
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    Prover(command=("-c", crash)).prove(window_row)
    like = next(op for op in ops_of(registry, "window") if op.step)
    peer = Peer(name="peer", prepare=lambda inputs: ("plain", lambda x: like.run(x, "chunkwise")))
    op = replace(like, run=lambda inputs, form: pytest.fail("it was run"), peers=(peer,))
    rates = Rates(copy_bytes_per_second=1e9, matmul_flops_per_second=1e9)
    bench = Bench(device=device, clock=WallClock(), ceilings=rates, row_seconds=0.0, form="triton", peers=True)
    ours, theirs = bench_case(op, op.grids[TINY][0], "decode", bench)
    assert (ours.contender, ours.status) == (OURS, "not proven")
    assert ours.reason == "window_attention sm_90 D=16 float32 failed on this card: its process ended by SIGSEGV"
    assert (theirs.contender, theirs.status) == ("peer", "measured")


def test_an_op_that_no_row_serves_is_a_row_with_the_reason(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card of an architecture that no table has: the ops after it are measured."""
    other = Machine(card="B200", arch="sm_100", driver="580", torch="2.11.0", triton="3.6.0", ptxas="12.8")
    monkeypatch.setattr("archsearch.bench.proven.machine_of", lambda device: other)
    op = next(op for op in ops_of(registry, "window") if op.step)
    rates = Rates(copy_bytes_per_second=1e9, matmul_flops_per_second=1e9)
    bench = Bench(device=torch.device("cpu"), clock=WallClock(), ceilings=rates, row_seconds=0.0, form="triton")
    (found,) = bench_case(op, op.grids[TINY][0], "decode", bench)
    assert (found.status, found.reason) == (
        "unavailable",
        "window_attention has no Triton configuration for sm_100, only for sm_80, sm_90",
    )


def test_bench_kernels_shows_the_tables_own_beside_what_was_tuned(registry: Registry, window_row: Row) -> None:
    device, key = torch.device("cpu"), window_row.key
    times = iter([2.0**-turn for turn in range(500)])
    prover = Prover(command=("-c", ANSWER.replace("== 1", "== 7")))
    found = tune_row(window_row, [lambda: None], prover, stopwatch=lambda call: next(times))
    assert found is not None
    keep_tuned(found)
    assert tuned(WINDOW, key, window_row.machine) is not None
    op = next(op for op in ops_of(registry, "window") if op.step)
    rates = Rates(copy_bytes_per_second=1e9, matmul_flops_per_second=1e9)
    bench = Bench(device=device, clock=WallClock(), ceilings=rates, row_seconds=0.0, form="triton")
    rows = bench_case(op, op.grids[TINY][0], "decode", bench)
    assert [(found.contender, found.status) for found in rows] == [(OURS, "measured"), (TUNED, "measured")]
    assert WINDOW.candidate(key) is None
