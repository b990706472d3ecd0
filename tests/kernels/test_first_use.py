"""A row is proven at its first use: what "auto" takes, what it waits for, and what it never takes again.

The interpreter plays the card, and most children are stand-ins that answer what a test has them answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from archsearch.errors import OptionsError
from archsearch.evidence.kept import kept, kept_path
from archsearch.evidence.proofs import Machine, Proof, Proofs, proven_source
from archsearch.evidence.tuned import Tuned, keep_tuned, named
from archsearch.kernels import Config, Key, Table, child, forms
from archsearch.kernels import device as devices
from archsearch.kernels.child import Limits
from archsearch.kernels.config import Configs
from archsearch.kernels.prove import NotTriedError, Prover, Row
from archsearch.ops.fused import fused
from archsearch.ops.impl import Served, choose_attention, choose_impl
from archsearch.proving import Attempt, Check, Verdict
from archsearch.proving.__main__ import answer
from archsearch.proving.attempt import attempt_row

MACHINE = Machine(card="H200", arch="sm_90", driver="580", torch="2.11.0", triton="3.6.0", ptxas="12.8")
KEY = ("sm_90", 64, 0)
PASSED = {"cases": 3, "error": 1e-3, "fault": ""}
FAILED = {"cases": 1, "error": 0.5, "fault": "lengths tokens=65: output 0 is off by 0.5, allowed are 0.005"}
CASES = [{"n": n} for n in range(3)]
LIMITS = Limits(seconds=100.0, host_bytes=2**33)
DTYPES = torch.bfloat16, torch.float32, torch.float16


class Children:
    """Stand-ins for the child: each notes that it was started, and runs the `code` that it is given."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "started"

    def run(self, code: str, limits: Limits = LIMITS) -> None:
        note = f"import sys; open({str(self._notes)!r}, 'a').write(sys.argv[1] + '\\n')"
        forms.prover = Prover(limits=limits, command=("-c", f"{note}\n{code}"))

    def answer(self, told: dict[str, Any]) -> None:
        self.run(f"print({json.dumps(told)!r})")

    @property
    def started(self) -> list[dict[str, Any]]:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    """A card, as far as "auto" can tell, and an empty cache."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ARCHSEARCH_PROVE", raising=False)
    monkeypatch.delenv("ARCHSEARCH_IMPL", raising=False)
    monkeypatch.setattr(devices, "takes_kernels", lambda device: True)
    monkeypatch.setattr(forms.machines, "machine_of", lambda device: MACHINE)
    monkeypatch.setattr(forms, "prover", Prover())
    monkeypatch.setattr(forms, "_late", {})
    forms._warn.cache_clear()
    forms.forget()
    found = Children(tmp_path)
    found.answer(PASSED)
    yield found
    forms.forget()


@pytest.fixture
def table() -> Table:
    return Table(op="proven_op", package="archsearch_plugins.full.triton", rows={KEY: {"forward": Config(tiles={})}})


def chosen(table: Table, dtype: torch.dtype = torch.bfloat16) -> str:
    served = Served(table=table, device=torch.device("cpu"), dtype=dtype, head_dim=64)
    return choose_impl(table.op, "auto", why="PyTorch", served=served)


def tuned_table() -> Table:
    """With two candidates."""
    candidates: dict[Key, list[Configs]] = {KEY: [{"forward": Config(tiles={"M": number})} for number in (32, 64)]}
    rows: dict[Key, Configs] = {KEY: {"forward": Config(tiles={"M": 16})}}
    return Table(op="tuned_op", package="archsearch_plugins.full.triton", rows=rows, candidates=candidates)


def tuned_to(held: Table, number: int) -> Tuned:
    """As if that candidate had been the fastest."""
    return Tuned(
        package=held.package,
        op=held.op,
        arch="sm_90",
        head_dim=64,
        chunk=0,
        source=proven_source(held.package),
        machine=named(MACHINE),
        config=held.digest(KEY, number),
        seconds={},
        date="2026-01-01",
    )


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """At the level that nobody has set."""
    return [record.getMessage() for record in caplog.records if record.name == "archsearch.impl"]


def test_the_first_call_proves_a_row_and_later_processes_know_it(
    children: Children, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    assert [chosen(table) for _ in range(3)] == ["triton"] * 3
    forms.forget()  # as another process
    assert chosen(table) == "triton"
    assert len(children.started) == 1
    asked = children.started[0]
    assert (asked["op"], asked["key"], asked["dtype"], asked["whole"]) == ("proven_op", list(KEY), "bfloat16", False)
    assert [message for message in caplog.messages if "is proven before its first use" in message] == [
        "proven_op sm_90 D=64 bfloat16 is proven before its first use, in a process of its own, which may take a "
        "minute or two"
    ]
    (proof,) = kept()
    assert (proof.passed, proof.cases, proof.whole, proof.machine) == (True, 3, False, MACHINE)


def test_each_dtype_is_proven_apart(children: Children, table: Table) -> None:
    assert chosen(table) == "triton"
    children.answer(FAILED)
    assert chosen(table, torch.float32) == "chunkwise"
    assert chosen(table) == "triton"


def test_float16_is_proven_where_it_is_met_and_not_taken_before(
    children: Children, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kernels prove` proves bfloat16 and float32."""
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    for dtype in ("bfloat16", "float32"):
        forms.prover.prove(Row(table=table, key=KEY, dtype=dtype, device="cpu", machine=MACHINE))
    assert [chosen(table, dtype) for dtype in DTYPES] == ["triton", "triton", "chunkwise"]
    monkeypatch.setenv("ARCHSEARCH_PROVE", "first-use")
    forms.forget()
    assert chosen(table, torch.float16) == "triton"
    assert [asked["dtype"] for asked in children.started] == ["bfloat16", "float32", "float16"]


def test_what_is_decided_for_one_dtype_holds_for_the_configurations_that_were_proven_in_it(children: Children) -> None:
    """All dtypes run a row with the same ones: one that is tuned meanwhile is proven anew in each that it is met in."""
    held = tuned_table()
    assert chosen(held, torch.float16) == "triton"
    assert held.candidate(KEY) is None
    keep_tuned(tuned_to(held, 1))
    assert chosen(held) == "triton"
    assert held.candidate(KEY) == 1
    children.answer(FAILED)
    assert chosen(held, torch.float16) == "chunkwise"
    assert chosen(held) == "triton"
    asked = [(one["dtype"], one["candidate"]) for one in children.started]
    assert asked == [("float16", None), ("bfloat16", 1), ("float16", 1)]


@pytest.mark.parametrize(
    ("q", "cache", "form"),
    [
        (torch.bfloat16, torch.bfloat16, "triton"),
        (torch.bfloat16, torch.float32, "triton"),
        (torch.bfloat16, torch.float16, "chunkwise"),
        (torch.float32, torch.bfloat16, "chunkwise"),
    ],
)
def test_attention_takes_a_row_beside_caches_that_it_was_proven_beside(
    children: Children, table: Table, q: torch.dtype, cache: torch.dtype, form: str
) -> None:
    queries, values = torch.zeros(1, 2, 64, dtype=q), torch.zeros(1, 3, 2, 64, dtype=cache)
    assert choose_attention(table, queries, values, "auto", why="PyTorch") == form
    assert len(children.started) == (form == "triton")


@pytest.mark.parametrize(
    ("x", "gate", "taken"),
    [
        (torch.bfloat16, torch.bfloat16, True),
        (torch.float32, torch.bfloat16, True),
        (torch.bfloat16, torch.float32, False),
        (torch.float32, torch.float16, False),
    ],
)
def test_a_fused_kernel_is_taken_for_what_it_is_proven_to_read(
    children: Children, table: Table, x: torch.dtype, gate: torch.dtype, taken: bool
) -> None:
    assert fused(table, torch.zeros(3, dtype=x), 64, beside=torch.zeros(3, dtype=gate)) == taken


def test_a_row_that_fails_is_named_with_its_figure_and_not_tried_again(
    children: Children, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    children.answer(FAILED)
    assert chosen(table) == "chunkwise"
    forms.forget()
    children.answer(PASSED)
    assert chosen(table) == "chunkwise"
    assert len(children.started) == 1
    assert [text for text in caplog.messages if "failed" in text] == [
        f"proven_op sm_90 D=64 bfloat16 failed on this card: {FAILED['fault']}; PyTorch runs in its place"
    ]


@pytest.mark.parametrize("change", [{"driver": "590"}, {"card": "A100"}, {"triton": "3.7.1"}, {"source": "other"}])
def test_a_proof_of_another_machine_or_source_counts_for_nothing(
    children: Children, table: Table, change: dict[str, str]
) -> None:
    assert chosen(table) == "triton"
    (proof,) = kept()
    Proofs(records=(proof.model_copy(update=change),)).write(kept_path())
    forms.forget()
    assert chosen(table) == "triton"
    assert len(children.started) == 2


def test_what_the_policy_says(children: Children, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    assert chosen(table) == "chunkwise"
    monkeypatch.setenv("ARCHSEARCH_PROVE", "frist-use")
    forms.forget()
    with pytest.raises(OptionsError, match=r'ARCHSEARCH_PROVE=frist-use: unknown \(did you mean "first-use"\?\)'):
        chosen(table)
    assert children.started == []
    monkeypatch.setenv("ARCHSEARCH_PROVE", "first-use")
    assert chosen(table) == "triton"
    for policy, expected in (("listed", "triton"), ("never", "chunkwise")):
        monkeypatch.setenv("ARCHSEARCH_PROVE", policy)
        forms.forget()
        assert chosen(table) == expected


def test_a_cache_that_cannot_be_read_is_put_aside(
    children: Children, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    kept_path().parent.mkdir(parents=True)
    kept_path().write_text('{"version": 1, "rec')
    assert chosen(table) == "triton"
    assert len(kept()) == 1
    assert kept_path().with_suffix(".unreadable").read_text() == '{"version": 1, "rec'
    assert "holds no proofs of kernels" in caplog.text


def test_a_cache_that_cannot_be_written_leaves_pytorch_and_says_where(
    children: Children, table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "file"))
    assert chosen(table) == "chunkwise"
    assert "name another in ARCHSEARCH_CACHE" in caplog.text


KILL = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("code", "limits", "kept_as"),
    [
        (KILL.format("SIGKILL"), LIMITS, None),
        (f'print(\'{{"doing": "packed", "cases": 2}}\', flush=True); {KILL.format("SIGKILL")}', LIMITS, None),
        ("raise SystemExit('no such plugin')", LIMITS, None),
        ('print(\'{"untried": "the card has no memory left for it"}\')', LIMITS, None),
        (KILL.format("SIGSEGV"), LIMITS, "its process ended by SIGSEGV"),
        (f'print(\'{{"doing": "packed", "cases": 2}}\', flush=True); {KILL.format("SIGABRT")}', LIMITS, "in packed"),
        (
            "x = bytearray(2**29); import time; time.sleep(1000)",
            Limits(seconds=100.0, host_bytes=2**28),
            "GiB of memory",
        ),
    ],
    ids=["killed", "killed-in-a-case", "cannot-start", "no-room", "crashed", "crashed-in-a-case", "too-much-memory"],
)
def test_how_a_child_ends(children: Children, table: Table, code: str, limits: Limits, kept_as: str | None) -> None:
    """What is the row's own doing is kept; what befell the child is not, and a new process tries again."""
    children.run(code, limits)
    assert [chosen(table) for _ in range(2)] == ["chunkwise"] * 2
    assert len(children.started) == 1
    assert [kept_as in proof.fault for proof in kept() if kept_as] == [True] * bool(kept_as)
    forms.forget()
    children.answer(PASSED)
    assert chosen(table) == ("triton" if kept_as is None else "chunkwise")


LATE = {"cases": 2, "error": 1e-3, "fault": "packed: it has run for 5.3 s, 5 s is all", "late": True}
SLOW = """
import time
from pathlib import Path
print('{"doing": "packed", "cases": 2}', flush=True)
Path(SAID).touch()
time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (SLOW, "it took longer than 100 s in packed"),
        (f"print({json.dumps(LATE)!r})", "packed: it has run for 5.3 s, 5 s is all"),
    ],
    ids=["the-child", "its-cases"],
)
def test_a_row_that_ran_out_of_time_has_not_failed(
    children: Children, table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, why: str
) -> None:
    """A busy machine may be why: this process does not try again, the next one does."""
    spoken = tmp_path / "spoken"
    clock = SimpleNamespace(sleep=time.sleep, monotonic=lambda: 1000.0 if spoken.exists() else 0.0)
    monkeypatch.setattr(child, "time", clock)
    for times in (1, 2):
        spoken.unlink(missing_ok=True)
        children.run(code.replace("SAID", repr(str(spoken))))
        monkeypatch.setattr(forms, "_late", {})  # as another process
        for _ in range(2):
            forms.forget()  # as before a trial
            assert chosen(table) == "chunkwise"
        assert len(children.started) == times
        assert [(proof.passed, proof.timeouts, proof.fault) for proof in kept()] == [(False, times, why)]
    monkeypatch.setattr(forms, "_late", {})
    forms.forget()
    spoken.unlink(missing_ok=True)
    children.answer(PASSED)
    assert chosen(table) == "triton"
    assert [(proof.passed, proof.timeouts) for proof in kept()] == [(True, 0)]


@pytest.mark.parametrize("before", [PASSED, FAILED], ids=["passed", "failed"])
def test_running_out_of_time_changes_nothing_of_what_is_known(
    children: Children, table: Table, before: dict[str, Any]
) -> None:
    children.answer(before)
    first = chosen(table)
    row = Row(table=table, key=KEY, dtype="bfloat16", device="cpu", machine=MACHINE)
    known = row.tried()
    assert known is not None
    again = Prover(whole=True, again=True, command=("-c", f"print({json.dumps(LATE)!r})"))
    with pytest.raises(NotTriedError, match="ran out of time, as on a busy machine"):
        again.prove(row)
    assert row.tried() == known
    forms.forget()
    assert chosen(table) == first


def test_a_child_that_cannot_be_started_is_not_the_cache_s_fault(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archsearch.kernels.prove.python_here", lambda: (["/nowhere/python"], {}))
    row = Row(table=table, key=KEY, dtype="bfloat16", device="cpu", machine=MACHINE)
    with pytest.raises(NotTriedError, match=r"could not be started \(.*nowhere/python"):
        Prover().prove(row)
    assert row.tried() is None


def test_of_two_processes_one_runs_out_of_time_for_both(children: Children, table: Table) -> None:
    """Who waited does not take as long again."""
    row = Row(table=table, key=KEY, dtype="bfloat16", device="cpu", machine=MACHINE)
    ahead = Prover(command=("-c", f"print({json.dumps(LATE)!r})"))

    class Waits(Row):
        """Sees what was known when it began to wait, and then what the process ahead of it left."""

        def timed_out(self) -> Proof | None:
            seen.append(super().timed_out())
            if len(seen) == 1:
                with pytest.raises(NotTriedError):
                    ahead.prove(row)
            return seen[-1]

    seen: list[Proof | None] = []
    waiting = Waits(**{name: getattr(row, name) for name in ("table", "key", "dtype", "device", "machine")})
    with pytest.raises(NotTriedError, match=r"5\.3 s"):
        forms.prover.prove(waiting)
    assert children.started == []


def test_cases_run_out_of_time_by_the_clock_but_for_compilation_and_a_wrong_figure_comes_first() -> None:
    attempt = Attempt(key=KEY, device=torch.device("cpu"), dtype=torch.float32)
    held = Table(op="timed_op", package="archsearch_plugins.full.triton", rows={KEY: {}})

    def tried(fault: str, compiling: float) -> tuple[int, bool, str]:
        verdict = Verdict(error=0.1, fault=fault)
        check = Check(table=held, name="slow", run=lambda attempt, n: verdict, cases=CASES, first=CASES)
        ticks = iter(range(0, 100, 4))
        found = attempt_row(attempt, [check], clock=lambda: next(ticks), compiling=lambda: compiling, seconds=5.0)
        return found.cases, found.late, found.fault

    assert tried("", 0.0) == (2, True, "slow n=1: it has run for 8.0 s, 5 s is all")
    assert tried("", 8.0) == (3, False, "")
    assert tried("output 0 is off by 0.5", 0.0) == (1, False, "slow n=0: output 0 is off by 0.5")


def test_nothing_is_proven_while_a_graph_is_traced_or_captured(
    children: Children, table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def double_or_triple(x: torch.Tensor) -> torch.Tensor:
        return x * 3 if chosen(table) == "triton" else x * 2

    ones = torch.ones(2)
    compiled = torch.compile(double_or_triple, fullgraph=True, backend="eager")
    assert torch.equal(compiled(ones), 2 * ones)
    named, remedy = "proven_op sm_90 D=64 bfloat16", "; a call before, or kernels prove, proves it"
    assert said(caplog) == [f"{named} runs in PyTorch: {forms.TRACED}{remedy}"]
    with monkeypatch.context() as patch:
        patch.setattr(forms, "_capturing", lambda device: True)
        assert [chosen(table) for _ in range(2)] == ["chunkwise"] * 2
    assert said(caplog)[1:] == [f"{named} runs in PyTorch: {forms.CAPTURED}{remedy}"]
    assert children.started == []
    assert chosen(table) == "triton"
    again = torch.compile(lambda x: double_or_triple(x) + 1, fullgraph=True, backend="eager")
    assert torch.equal(again(ones), 3 * ones + 1)


def test_of_eight_processes_one_proves_and_the_others_wait(children: Children, tmp_path: Path) -> None:
    children.run(f"import time; time.sleep(0.5); print({json.dumps(PASSED)!r})")
    code = f"""
from archsearch.evidence.proofs import Machine
from archsearch.kernels import Config, Table
from archsearch.kernels.prove import Prover, Row
rows = {{{KEY!r}: {{"forward": Config(tiles={{}})}}}}
table = Table(op="shared", package="archsearch_plugins.full.triton", rows=rows)
row = Row(table=table, key={KEY!r}, dtype="bfloat16", device="cpu", machine={MACHINE!r})
print(Prover(command={tuple(forms.prover.command)!r}).prove(row).passed)
"""
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate(timeout=200)[0].strip() for process in started] == ["True"] * 8
    assert len(children.started) == 1


def test_in_a_trial_the_forms_stay_what_they_were_when_it_began(children: Children, table: Table) -> None:
    before = forms.Forms(proven=forms.proven_here([table.package], torch.device("cpu")))
    assert chosen(table) == "triton"  # proven meanwhile, by somebody else
    with forms.held(before):
        assert chosen(table) == "chunkwise"
    after = forms.Forms(proven=forms.proven_here([table.package], torch.device("cpu")))
    children.answer(FAILED)
    assert chosen(table, torch.float32) == "chunkwise"
    with forms.held(after):
        assert chosen(table) == "triton"
    assert before.digest != after.digest
    assert (before.told, after.told) == ("none", "proven_op sm_90 D=64 bfloat16")
    assert chosen(table) == "triton"


@pytest.mark.parametrize("policy", ["listed", "first-use"])
@pytest.mark.parametrize("proven", [True, False], ids=["proven", "not-proven"])
def test_a_trial_takes_tuned_rows_where_no_model_was_run_before_it(
    children: Children, monkeypatch: pytest.MonkeyPatch, policy: str, proven: bool
) -> None:
    """As where only proofs that there are count; a candidate that is not among them leaves the table's own."""
    held = tuned_table()
    own = Row(table=held, key=KEY, dtype="bfloat16", device="cpu", machine=MACHINE)
    for number in (None, 1)[: 1 + proven]:
        forms.prover.prove(replace(own, candidate=number))
    keep_tuned(tuned_to(held, 1))
    monkeypatch.setenv("ARCHSEARCH_PROVE", policy)
    trial = forms.Forms(proven=forms.proven_here([held.package], torch.device("cpu")))
    with forms.held(trial):
        assert [chosen(held) for _ in range(2)] == ["triton"] * 2
    assert held.candidate(KEY) == (1 if proven else None)
    assert trial.told == "tuned_op sm_90 D=64 bfloat16" + (f" tuned {held.digest(KEY, 1)}" if proven else "")


def test_a_table_without_checks_is_never_taken() -> None:
    told = answer({"op": "of nobody", "key": KEY, "dtype": "float32", "device": "cpu", "whole": False}, print)
    assert told["fault"].startswith("nothing proves it: its plugin hands no checks to register_kernels")


PLANTED = """
import sys
from triton.runtime.interpreter import InterpretedFunction
run = InterpretedFunction.run
def run_wrongly(self, *args, **options):
    result = run(self, *args, **options)
    if self.fn.__name__ == "unit_forward":
        (dict(zip(self.arg_names, args)) | options)["unit"].mul_(1.05)
    return result
InterpretedFunction.run = run_wrongly
from archsearch.proving.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        pytest.param(("-m", "archsearch.proving"), "", id="right", marks=pytest.mark.slow),
        pytest.param(("-c", PLANTED), "is off by", id="wrong"),
    ],
)
def test_the_child_proves_a_right_kernel_and_refuses_a_wrong_one(
    command: tuple[str, ...], fault: str, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archsearch.ops.triton.table import UNIT

    monkeypatch.setenv("ARCHSEARCH_LOAD_PLUGINS", "tasks")
    row = Row(table=UNIT, key=("sm_90", 16, 0), dtype="float32", device="cpu", machine=MACHINE)
    proof = Prover(limits=LIMITS, command=command).prove(row)
    assert proof.passed == (not fault)
    assert fault in proof.fault
    assert proof.cases == 1
    assert row.tried() == proof
