"""`bench kernels` runs no kernel that is not proven; the interpreter plays the card, and the children are stand-ins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from archsearch_plugins.indexed.triton.table import CHOICE
from archsearch_plugins.indexed.triton.table import TABLE as INDEXED
from archsearch_plugins.sliding.triton.table import TABLE as WINDOW
from bench_samples import CPU, RATES
from torch import Tensor

from archsearch.bench.clock import WallClock
from archsearch.bench.kernels import TUNED, Bench, bench_case, ops_of
from archsearch.bench.op import TINY, BenchOp, Draw, Peer
from archsearch.bench.results.schema import OURS, KernelRow
from archsearch.bench.results.work import Shape
from archsearch.bench.tune import rows_beside, tune_row
from archsearch.evidence.kept import kept, kept_path
from archsearch.evidence.tuned import keep_tuned
from archsearch.kernels import Table, forms
from archsearch.kernels import device as devices
from archsearch.kernels.config import tables
from archsearch.kernels.machine import machine_of
from archsearch.kernels.prove import Prover, Row
from archsearch.registry import Registry, load_registry

KEY = ("sm_90", 16, 0)
PASSED = {"cases": 3, "error": 1e-3, "fault": ""}
FAILED = {"cases": 1, "error": 0.5, "fault": "output 0 is off by 0.5"}
UNTRIED = {"untried": "the card has no memory left for it"}


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A card, as far as anybody can tell, and an empty cache; what is proven, as it begins."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    monkeypatch.delenv("ARCHSEARCH_PROVE", raising=False)
    monkeypatch.setattr(devices, "takes_kernels", lambda device: True)
    monkeypatch.setattr(forms, "_late", {})
    found = list[str]()
    monkeypatch.setattr(forms, "prover", Noted(found, PASSED))
    forms.forget()
    yield found
    forms.forget()


class Noted(Prover):
    """A prover whose children answer what they are told to."""

    def __init__(self, started: list[str], told: dict[str, Any]) -> None:
        super().__init__(command=("-c", f"print({json.dumps(told)!r})"))
        object.__setattr__(self, "started", started)

    def prove(self, row: Row) -> Any:
        self.started.append(row.label)  # type: ignore[attr-defined]
        return super().prove(row)


def answer(monkeypatch: pytest.MonkeyPatch, started: list[str], told: dict[str, Any]) -> None:
    monkeypatch.setattr(forms, "prover", Noted(started, told))


def row_of(table: Table) -> Row:
    machine = machine_of(CPU)
    assert machine is not None
    return Row(table=table, key=KEY, dtype="float32", device="cpu", machine=machine)


def step_of(registry: Registry, name: str, *, runs: bool) -> BenchOp:
    """An op's decode step that runs in PyTorch whatever is asked for, and counts as if its kernels ran; with a peer."""
    op = next(op for op in ops_of(registry, name) if op.step and op.grids[TINY])
    plain = op.run

    def run(inputs: Any, form: str) -> Any:
        assert runs, "it was run"
        return plain(inputs, "chunkwise")

    peer = Peer(name="peer", prepare=lambda inputs: ("plain", lambda x: plain(x, "chunkwise")))
    return replace(op, run=run, peers=(peer,))


def bench() -> Bench:
    return Bench(device=CPU, clock=WallClock(), ceilings=RATES, row_seconds=0.0, form="triton", peers=True)


def measured(op: BenchOp, held: Bench | None = None) -> list[KernelRow]:
    return bench_case(op, op.grids[TINY][0], "decode", held or bench())


NAMED = "window_attention sm_90 D=16 float32"


def test_a_row_that_nobody_knows_is_proven_before_it_is_measured(registry: Registry, started: list[str]) -> None:
    ours, theirs = measured(step_of(registry, "window", runs=True))
    assert (ours.status, theirs.status) == ("measured", "measured")
    assert started == [NAMED]
    assert ours.proven == f"{NAMED} {kept()[0].date}, 3 cases of a first use"
    assert theirs.proven == ""
    again, _ = measured(step_of(registry, "window", runs=True))
    assert again.proven == ours.proven
    assert started == [NAMED]


@pytest.mark.parametrize("policy", ["listed", "never"])
def test_where_nothing_may_be_proven_a_row_is_left_out_and_one_that_is_proven_is_measured(
    registry: Registry, started: list[str], monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setenv("ARCHSEARCH_PROVE", policy)
    ours, theirs = measured(step_of(registry, "window", runs=False))
    assert (ours.contender, ours.status, ours.proven) == (OURS, "not proven", "")
    assert ours.reason == (
        f"{NAMED} is not proven here, and ARCHSEARCH_PROVE={policy}: archsearch kernels prove proves it"
    )
    assert theirs.status == "measured"
    assert started == []
    forms.prover.prove(row_of(WINDOW))
    assert measured(step_of(registry, "window", runs=True))[0].status == "measured"


@pytest.mark.parametrize(
    ("told", "reason"),
    [(FAILED, "failed on this card: output 0 is off by 0.5"), (UNTRIED, "the card has no memory left for it")],
    ids=["fails", "cannot-be-tried"],
)
def test_a_row_that_does_not_pass_is_tried_once_and_never_run(
    registry: Registry,
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    told: dict[str, Any],
    reason: str,
) -> None:
    answer(monkeypatch, started, told)
    op, held = step_of(registry, "window", runs=False), bench()
    for _ in range(2):
        ours, theirs = measured(op, held)
        assert (ours.status, theirs.status) == ("not proven", "measured")
        assert reason in ours.reason
    assert started == [NAMED]


def test_every_row_behind_an_op_must_be_proven(
    registry_of_indexed: Registry, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention over an index's choice runs the kernels of the choice too."""
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    forms.prover.prove(row_of(INDEXED))
    ours, _ = measured(step_of(registry_of_indexed, "indexed", runs=False))
    assert ours.reason.startswith("indexed_choice sm_90 D=16 float32 is not proven here")
    forms.prover.prove(row_of(CHOICE))
    ours, _ = measured(step_of(registry_of_indexed, "indexed", runs=True))
    assert [told.split()[0] for told in ours.proven.split("; ")] == ["indexed_attention", "indexed_choice"]


def test_no_candidate_is_tuned_beside_a_row_that_is_not_proven(
    registry_of_indexed: Registry, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, said = row_of(INDEXED), list[str]()
    beside = rows_beside(ops_of(registry_of_indexed), row)
    assert [held.label for held in beside] == ["indexed_choice sm_90 D=16 float32"]
    wrong = Noted(started, FAILED)

    def call() -> None:
        pytest.fail("it was run")

    assert tune_row(row, [call], wrong, stopwatch=lambda call: 1.0, beside=beside, tell=said.append) is None
    assert said == ["indexed_choice sm_90 D=16 float32 is left out: output 0 is off by 0.5"]


def test_what_was_tuned_is_not_measured_where_it_is_not_proven(
    registry: Registry, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where proofs.json was lost, and tuned.json was not."""
    times = iter([2.0**-turn for turn in range(500)])
    found = tune_row(row_of(WINDOW), [lambda: None], Noted(started, PASSED), stopwatch=lambda call: next(times))
    assert found is not None
    assert found.config
    keep_tuned(found)
    kept_path().unlink()
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    own, tuned, _ = measured(step_of(registry, "window", runs=False))
    assert [(one.contender, one.status) for one in (own, tuned)] == [(OURS, "not proven"), (TUNED, "not proven")]
    assert "candidate" in tuned.reason


@pytest.fixture(scope="module")
def registry_of_indexed() -> Registry:
    return load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "indexed"})


def test_an_op_names_every_row_that_its_kernels_run(installed: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one of them would be measured unproven. Kernels are listed here, and not run."""
    from triton.runtime.interpreter import InterpretedFunction

    met, row = set[tuple[str, tuple[str, int, int]]](), Table.row

    def noted(table: Table, key: tuple[str, int, int], dtype: torch.dtype | None = None) -> Any:
        met.add((table.op, key))
        return row(table, key, dtype)

    def listed(kernel: Any, *args: Any, **options: Any) -> None: ...

    monkeypatch.setattr(Table, "row", noted)
    monkeypatch.setattr(InterpretedFunction, "run", listed)
    monkeypatch.setattr(torch, "empty", torch.zeros)  # a list of blocks that nobody wrote is no index
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)
    monkeypatch.setattr(Tensor, "new_empty", Tensor.new_zeros)
    seen = set[str]()
    for op in ops_of(installed):
        for shape in op.grids[TINY] if op.forms[0] == "triton" else ():
            met.clear()
            run(op, shape)
            named = {name: tables[name].key("sm_90", width)[1] for name, width in op.rows(shape.head_dim).items()}
            assert {name: key[1] for name, key in met} == named, op.name
            seen |= named.keys()
    assert {op.table for op in ops_of(installed) if op.table} <= seen


def run(op: BenchOp, shape: Shape) -> None:
    drawn = op.inputs(shape, Draw.on(CPU, torch.float32))
    leaves = {name: x.requires_grad_(name in op.trained) for name, x in drawn.items()}
    out = op.run(leaves, "triton")[0]
    if op.trained:
        torch.autograd.grad(out.sum(), [leaves[name] for name in op.trained], allow_unused=True)
