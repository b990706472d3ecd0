"""Candidates by their bounds: their order, whether a card agrees with it, and launches that are followed once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from archsearch.bench.bounds.order import agreements
from archsearch.bench.builds import all_builds
from archsearch.cli import app
from archsearch.evidence.compiled import Report
from archsearch.evidence.modelled import OWN, Modelled, ModelledRows, Taken, by_row, gains, stale_rows
from archsearch.evidence.tuned import Tuned, TunedRows
from archsearch.kernels import Key, Table
from archsearch.proving.rows import all_checks
from archsearch.registry import Registry

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "bounds" / "candidates.json"
ACCEPTED = Path(__file__).parents[1] / "kernels" / "accepted.json"


def modelled(candidate: int, *seconds: float, op: str = "ordered") -> Modelled:
    taken = Taken(
        kernel="forward", registers=64, shared_bytes=2048, resident=4, held_by="registers", limit="cache", ms=1.0
    )
    return Modelled(
        op=op,
        arch="sm_90",
        head_dim=128,
        chunk=0,
        candidate=candidate,
        config="" if candidate == OWN else f"digest-{candidate}",
        changes="" if candidate == OWN else f"forward: M={candidate} 4 warps 2 stages",
        sizes=("forward 1x64",) * len(seconds),
        seconds=seconds,
        taken=(taken,),
        uncertain=False,
        kernels="k",
        triton="3.7.1",
        ptxas="12.8",
    )


def tuned(seconds: dict[int, float], op: str = "ordered", kernels: str = "k") -> Tuned:
    times = {"" if number == OWN else f"digest-{number}": (time,) for number, time in seconds.items()}
    machine = ("H200", "580", "2.11.0", "3.7.1", "12.8")
    return Tuned(
        package="p",
        op=op,
        arch="sm_90",
        head_dim=128,
        chunk=0,
        source="of today",
        kernels=kernels,
        machine=machine,
        config="",
        seconds=times,
        date="2026-01-01",
    )


ROW = [modelled(OWN, 2.0, 8.0), modelled(0, 1.0, 4.0), modelled(1, 3.0, 12.0), modelled(2, 2.0, 8.0)]


def test_the_least_bound_comes_first_and_of_equal_ones_the_tables_own() -> None:
    (ones,) = by_row(reversed(ROW)).values()
    assert [one.candidate for one in ones] == [0, OWN, 2, 1]
    assert gains(ones) == {0: 0.5, OWN: 1.0, 2: 1.0, 1: 1.5}


@pytest.mark.parametrize(
    ("times", "tau"),
    [
        ({OWN: 4.0, 0: 3.0, 1: 9.0}, 1.0),
        ({OWN: 4.0, 0: 5.0, 1: 1.0}, -1.0),
        ({OWN: 4.0, 0: 5.0, 1: 9.0}, 1 / 3),
        ({OWN: 4.0, 0: 3.0, 1: 9.0, 2: 5.0}, 5 / 30**0.5),  # one pair of six is equal for the model
    ],
)
def test_the_order_is_compared_with_what_a_card_measured(times: dict[int, float], tau: float) -> None:
    row, every = agreements(ROW, [tuned(times)])
    assert (row.row, row.card, row.count) == ("ordered sm_90 D=128", "H200", len(times))
    assert row.tau == pytest.approx(tau)
    assert (every.row, every.count, every.tau) == ("all", len(times), pytest.approx(tau))


def test_over_all_rows_times_count_by_those_of_the_tables_own() -> None:
    """A row of slow kernels beside one of fast ones is no agreement."""
    slow = [modelled(OWN, 1e3, op="slow"), modelled(0, 2e3, op="slow")]
    found = agreements([*ROW, *slow], [tuned({OWN: 4.0, 0: 5.0}), tuned({OWN: 1e3, 0: 5e2}, op="slow")])
    assert [(one.row, one.count, one.tau) for one in found] == [("all", 4, pytest.approx(-1.0))]


def test_measurements_of_other_kernels_count_for_nothing() -> None:
    times = {OWN: 4.0, 0: 3.0, 1: 9.0}
    assert agreements(ROW, [tuned(times, kernels="older")]) == []
    assert agreements([one.model_copy(update={"kernels": ""}) for one in ROW], [tuned(times, kernels="")]) == []
    assert agreements(ROW, [tuned(times, op="another")]) == []
    assert agreements([modelled(number, 1.0) for number in (OWN, 0, 1)], [tuned(times)])[0].tau is None


def test_the_command_tells_order_and_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["kernels", "candidates", *words], terminal_width=500)

    bounds, times = tmp_path / "bounds.json", tmp_path / "tuned.json"
    ModelledRows.add(bounds, ROW)
    TunedRows.add(times, [tuned({OWN: 4.0, 0: 3.0, 1: 9.0})])
    result = run("--bounds", str(bounds), "--tuned", str(times), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [one["candidate"] for one in told["rows"][0]["order"]] == [0, OWN, 2, 1]
    assert [(one["row"], one["kendall_tau_b"]) for one in told["order"]] == [("ordered sm_90 D=128", 1.0), ("all", 1.0)]
    shown = run("--bounds", str(bounds), "--tuned", str(times)).stdout
    marked = "candidate 0 (forward: M=0 4 warps 2 stages): 50% of the bound at forward 1x64"
    assert marked in shown
    assert "H200: Kendall's tau-b of 3 configurations with measurement: 1.00" in shown
    assert "unproven" in run("--bounds", str(bounds)).stdout
    unknown = run("--bounds", str(bounds), "--only", "D=64")
    assert str(unknown.exception) == "--only D=64: no row that is measured and has candidates has a label with this"
    missing = run("--bounds", str(tmp_path / "no.json"))
    assert "write one with archsearch kernels candidates --write" in str(missing.exception or missing.output)


def test_each_row_is_written_before_the_next_is_modelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may take an hour, and be ended."""
    file, seen = tmp_path / "bounds.json", list[int]()

    def model_row(ops: object, table: Table, key: Key, *given: object, kernels: str, most: int) -> list[Modelled]:
        seen.append(len(ModelledRows.read(file).records) if file.is_file() else 0)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return [modelled(OWN, 1.0, op=f"{table.op} {key[1]}").model_copy(update={"kernels": kernels})]

    def digests(registry: Registry, archs: list[str]) -> dict[str, str]:
        all_builds(registry, archs[0])
        return {}

    monkeypatch.setattr("archsearch.bench.bounds.candidates.model_row", model_row)
    monkeypatch.setattr(
        "archsearch.bench.builds.digests", lambda registry, archs: all_builds(registry, archs[0]) and {}
    )
    words = ["kernels", "candidates", "--only", "short_conv", "--sizes", "1", "--arch", "sm_90", "--arch", "sm_80"]
    assert CliRunner().invoke(app, [*words, "--write", str(file)]).exit_code != 0
    assert seen == [0, 1, 2]


def test_the_committed_bounds_are_of_todays_candidates(installed: Registry) -> None:
    """After a change to a list: archsearch kernels candidates --sizes 1 --only ROW --write FILE."""
    by_op = {op: checks[0].table for op, checks in all_checks(installed).items()}
    for ones in by_row(ModelledRows.read(COMMITTED).records).values():
        table, key = by_op[ones[0].op], (ones[0].arch, ones[0].head_dim, ones[0].chunk)
        digests = {OWN: "", **{number: table.digest(key, number) for number in table.numbers(key)}}
        assert {one.candidate: one.config for one in ones} == digests, ones[0].row


def test_the_committed_bounds_are_of_todays_kernels(installed: Registry) -> None:
    """Renewed by the commands that are named; the accepted report is of today's kernels, as a test of it says."""
    digests = {compiled.label: compiled.digest for compiled in Report.read(ACCEPTED).records}
    found = ModelledRows.read(COMMITTED).records
    assert stale_rows(found, digests) == []
    assert {(one.op, one.arch) for one in found} == {
        (checks[0].table.op, key[0]) for checks in all_checks(installed).values() for key in checks[0].table.candidates
    }
    changed = digests | {label: "other" for label in digests if label.startswith("moba_attention past_forward D=128 ")}
    assert [line.split(":")[0] for line in stale_rows(found, changed)] == [
        "moba_attention sm_80 D=128",
        "moba_attention sm_90 D=128",
    ]
    remedy = 'candidates --arch sm_80 --sizes 1 --only "moba_attention sm_80 D=128" --write'
    assert remedy in stale_rows(found, changed)[0]
