"""``kernels prove``, ``list`` and ``tune``: what they say and how they exit; children are stand-ins."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from archsearch.errors import SpecError
from archsearch.evidence.bounds import digest_of_kernels
from archsearch.evidence.kept import keep, kept
from archsearch.evidence.tuned import FILE, TunedRows
from archsearch.kernels import prove
from archsearch.kernels.child import Ended, Limits
from archsearch.proving.rows import all_checks
from archsearch.registry import load_registry

Run = Callable[..., Result]
ONE = ("kernels", "prove", "--mixer", "sliding", "--only", "D=16 ", "--json")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the children of a command answer, the last one again and again; the cache is empty."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    told: list[dict[str, Any]] = []

    def run_child(command: Sequence[str], limits: Limits, environ: Mapping[str, str]) -> Ended:
        return Ended(output=json.dumps(told[0] if len(told) == 1 else told.pop(0)))

    monkeypatch.setattr(prove, "run_child", run_child)
    return told


def rows(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return found


def listed(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("kernels", "list", "--arch", "sm_90", "--json").stdout)["kernels"]
    return found


def test_a_row_that_passes_is_kept_and_no_longer_missing(run: Run, answers: list[dict[str, Any]]) -> None:
    answers.append({"cases": 7, "error": 0.001, "fault": ""})
    result = run(*ONE)
    assert result.exit_code == 0, result.output
    (row,) = rows(result)
    assert (row["row"], row["status"], row["cases"]) == ("window_attention sm_90 D=16 float32", "passed", 7)
    assert [proof.whole for proof in kept()] == [True]
    assert rows(run(*ONE, "--missing")) == []
    assert len(rows(run(*ONE))) == 1  # asked for by name it is proven again


def test_a_row_that_fails_exits_with_1_and_is_listed(run: Run, answers: list[dict[str, Any]]) -> None:
    answers.append({"cases": 1, "error": None, "fault": "packed: output 0 is off by 0.5"})
    result = run(*ONE)
    assert result.exit_code == 1
    assert rows(result)[0]["fault"] == "packed: output 0 is off by 0.5"
    (row,) = [row for row in listed(run) if row["status"] != "not proven"]
    assert row["status"] == "failed: packed: output 0 is off by 0.5"


def test_a_row_that_cannot_be_tried_is_no_failure_of_its_own(run: Run, answers: list[dict[str, Any]]) -> None:
    answers.append({"untried": "the card has no memory left for it"})
    result = run(*ONE)
    assert result.exit_code == 1
    assert rows(result)[0]["status"] == "not tried"
    assert "no memory left" in rows(result)[0]["reason"]
    assert kept() == ()


def test_where_there_is_no_card_a_sentence_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    all_checks(load_registry())  # kernels imported below would be interpreted in no later test
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for command in ("prove", "tune"):
        result = run("kernels", command)
        assert result.exit_code == 1
        assert "torch finds no CUDA device. Run it where the card is" in str(result.exception or result.output)


def test_tune_proves_times_and_says_what_runs(
    run: Run, answers: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a clock that says that each configuration is twice as fast as the one before."""
    answers += [{"cases": 7, "error": 0.001, "fault": ""}, {"cases": 7, "error": 0.5, "fault": "is off by 0.5"}]
    answers.append({"cases": 7, "error": 0.001, "fault": ""})
    one = ("kernels", "tune", "--mixer", "sliding", "--only", "D=16 ")
    clock = iter([2.0**-turn for turn in range(500)])
    monkeypatch.setattr("archsearch.bench.clock.clock_for", lambda device: lambda call: next(clock))
    monkeypatch.setattr("archsearch.bench.tune.calls_of", lambda *given: [lambda: None])
    built = {"window_attention forward D=16 sm_90": "a", "window_attention forward D=16 sm_80": "b"}
    monkeypatch.setattr("archsearch.bench.builds.digests", lambda registry, archs: built if archs == ["sm_90"] else {})
    result = run(*one)
    assert result.exit_code == 0, result.output
    (tuned,) = TunedRows.read(tmp_path / FILE).records
    assert tuned.kernels == digest_of_kernels(built, "window_attention", "sm_90") != ""
    assert "window_attention sm_90 D=16 float32 candidate 0 is left out: is off by 0.5" in result.stderr
    cells = next(line.split() for line in result.stdout.splitlines() if "D=16" in line)
    assert (cells[3], cells[-2:]) == ("2", ["candidate", "1"])
    assert [proof.config == "" for proof in kept()].count(True) == 1
    answers[:] = [{"cases": 7, "error": None, "fault": "is off by 0.5"}]
    (tmp_path / "proofs.json").unlink()
    result = run(*one)
    assert "no row here has candidates, and an op that measures it, and a configuration that is right" in result.stdout


def test_tune_refuses_a_cache_that_cannot_be_written_before_the_work(
    run: Run, answers: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_CACHE", "/proc/nothing")
    monkeypatch.setattr("archsearch.bench.tune.tune_row", lambda *given, **named: pytest.fail("it was refused before"))
    result = run("kernels", "tune", "--mixer", "sliding", "--only", "D=16 ")
    assert isinstance(result.exception, SpecError)
    assert "let ARCHSEARCH_CACHE name a folder that can be written" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("prove", "--minutes", "-1"), "Invalid value for '--minutes'"),
        (("list", "--arch", "sm_99"), "--arch sm_99: no table of kernels has rows for it; there are sm_80, sm_90"),
        (("compile", "--arch", "sm_99"), "--arch sm_99: no table of kernels has rows for it; there are sm_80, sm_90"),
    ],
    ids=["minutes", "arch", "arch-of-builds"],
)
def test_what_there_cannot_be_is_refused(run: Run, answers: list[dict[str, Any]], words: Any, told: str) -> None:
    result = run("kernels", *words)
    assert result.exit_code != 0
    assert told in f"{result.output}{result.exception}"


def test_candidates_are_proven_in_place_of_their_rows(run: Run, answers: list[dict[str, Any]]) -> None:
    answers.append({"cases": 7, "error": 0.001, "fault": ""})
    result = run(*ONE, "--candidates")
    assert result.exit_code == 0, result.output
    assert sorted(row["row"] for row in rows(result)) == [
        f"window_attention sm_90 D=16 float32 candidate {number}" for number in range(2)
    ]
    assert len({proof.config for proof in kept()} - {""}) == 2
    assert rows(run(*ONE, "--candidates", "--missing")) == []
    told = [row for row in listed(run) if (row["op"], row["head_dim"]) == ("window_attention", 16)]
    assert [(row["configuration"], row["status"]) for row in told] == [
        ("the table's own", "not proven"),
        ("candidate 0", "verified"),
        ("candidate 1", "verified"),
    ]
    assert len(rows(run(*ONE, "--missing"))) == 1  # of the row itself nothing is known


def test_what_was_proven_with_another_driver_or_torch_is_not_verified(run: Run, answers: list[dict[str, Any]]) -> None:
    answers.append({"cases": 7, "error": 0.001, "fault": ""})
    run(*ONE)
    (proof,) = kept()
    changes = {
        "float32": {},
        "bfloat16": {"driver": "575.1"},
        "float16": {"torch": "2.0.1"},
        "float64": {"triton": "3.0.0"},
        "int8": {"card": "A100", "driver": "575.1"},
    }
    keep(proof.model_copy(update={"dtype": name, **change}) for name, change in changes.items())
    found = {row["dtype"]: row["status"] for row in listed(run) if row["dtype"]}
    assert found == {
        "float32": "verified",
        "bfloat16": "not proven: driver was 575.1",
        "float16": "not proven: torch was 2.0.1",
        "float64": "not proven: Triton was 3.0.0",
        "int8": "verified",  # on a card that is not here
    }


@pytest.mark.parametrize("command", ["prove", "compile", "model", "tune"])
def test_a_label_that_nothing_has_is_refused(run: Run, answers: list[dict[str, Any]], command: str) -> None:
    result = run("kernels", command, "--only", "no such kernel")
    assert result.exit_code == 1
    assert str(result.exception).startswith("--only no such kernel: no ")
