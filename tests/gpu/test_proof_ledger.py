"""A row is listed as proven only if all of its checks ran and passed; this needs no card."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_proofs
import pytest
from archsearch_plugins.sliding.triton.table import TABLE
from gpu_proofs import Ledger, refuse_partial_runs, write_proofs

from archsearch.bench.results.schema import Environment
from archsearch.evidence.proofs import Proofs, proven_source
from archsearch.kernels import Key

NARROW, WIDE = ("sm_90", 16, 0), ("sm_90", 128, 0)


def item(name: str, key: Key) -> Any:
    marks = {"proves": [pytest.mark.proves(TABLE).mark]}
    return SimpleNamespace(
        nodeid=name, callspec=SimpleNamespace(params={"key": key}), iter_markers=lambda mark: marks.get(mark, [])
    )


def report(name: str, *, passed: bool = True, when: str = "call") -> Any:
    return SimpleNamespace(nodeid=name, passed=passed, when=when)


def ledger(*reports: Any) -> Ledger:
    made = Ledger()
    for name, key in (("a", NARROW), ("b", NARROW), ("c", WIDE)):
        made.plan(item(name, key))
    for one in reports:
        made.record(one)
    return made


@pytest.mark.parametrize(
    ("reports", "proven"),
    [
        ([], []),
        ([report("a")], []),
        ([report("a"), report("b")], [NARROW]),
        ([report("a"), report("b", passed=False), report("c")], [WIDE]),
        ([report("a"), report("b", when="setup"), report("b", when="teardown")], []),
    ],
    ids=["none-ran", "one-of-two", "both", "one-failed", "skipped"],
)
def test_all_checks_of_a_row_must_pass(reports: list[Any], proven: list[Key]) -> None:
    assert ledger(*reports).proven() == [(TABLE.op, key) for key in proven]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Environment(
        card="H200",
        arch="sm_90",
        driver="580",
        torch="2.11.0",
        triton="3.6.0",
        ptxas="13.0",
        python="3.12",
        archsearch="0.1.0",
        commit=None,
        date="2026-11-21",
    )
    monkeypatch.setattr(gpu_proofs, "environment", lambda device: here)
    monkeypatch.setattr(gpu_proofs, "arch_of", lambda device: "sm_90")


def test_proofs_are_added_to_the_list_of_the_package(card: None, tmp_path: Path) -> None:
    path = tmp_path / TABLE.package / Proofs.FILE
    write_proofs(ledger(report("c")), tmp_path)
    first = Proofs.read(path).records
    assert [proof.key for proof in first] == [WIDE]
    assert (first[0].op, first[0].source, first[0].card) == (TABLE.op, proven_source(TABLE.package), "H200")
    older = first[0].model_copy(update={"date": "2020-01-01"}), first[0].model_copy(update={"triton": "3.5.0"})
    Proofs(records=older).write(path)
    write_proofs(ledger(report("a"), report("b"), report("c")), tmp_path)
    found = Proofs.read(path).records
    assert [(proof.key, proof.triton) for proof in found] == [(NARROW, "3.6.0"), (WIDE, "3.5.0"), (WIDE, "3.6.0")]
    assert {proof.date for proof in found} == {"2026-11-21"}
    assert list(path.parent.iterdir()) == [path]


def test_single_tests_prove_nothing() -> None:
    def config(*arguments: str, write: bool = True) -> Any:
        return SimpleNamespace(args=list(arguments), getoption=lambda name: write)

    refuse_partial_runs(config("tests/gpu/test_gpu_full.py"))
    refuse_partial_runs(config("tests/gpu/test_gpu_full.py::test_lengths", write=False))
    with pytest.raises(pytest.UsageError, match="name whole files"):
        refuse_partial_runs(config("tests/gpu/test_gpu_full.py::test_lengths"))
