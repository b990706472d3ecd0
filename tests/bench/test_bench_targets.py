"""Targets are judged by what the files hold and by nothing else."""

from __future__ import annotations

import pytest
from results_samples import kernel_results, kernel_row, model_results, model_row

from archsearch.bench.results.schema import Results
from archsearch.bench.results.targets import Verdict, judge_targets

FLA = "flash-linear-attention"


def judged(title: str, *results: Results, case: str = "") -> Verdict:
    (found,) = [one for one in judge_targets(results) if one.target == title and case in one.case]
    return found


def test_nothing_is_met_where_nothing_was_measured() -> None:
    verdicts = judge_targets([])
    assert len(verdicts) >= 15
    assert {(one.status, one.measured) for one in verdicts} == {("not measured", "")}
    assert all("no such case" in one.reason for one in verdicts)


def test_another_card_says_nothing_of_an_h200() -> None:
    results = kernel_results(kernel_row(ms=1.0), kernel_row(ms=9.0, contender=FLA), card="NVIDIA A100")
    assert {one.status for one in judge_targets([results])} == {"not measured"}


@pytest.mark.parametrize(("peer", "status"), [(1.31, "met"), (1.3, "met"), (1.29, "missed")])
def test_a_ratio_is_the_peers_time_over_ours(peer: float, status: str) -> None:
    results = kernel_results(kernel_row(ms=1.0), kernel_row(ms=peer, contender=FLA))
    found = judged("KDA and Gated DeltaNet, from 32k tokens, forward", results, case="kda")
    assert (found.status, found.measured) == (status, f"{peer:.2f} x")


def test_the_fastest_peer_counts() -> None:
    sizes = {"block_size": 512, "top_k": 3}
    rows = [
        kernel_row("moba", ms, contender=name, tokens=131072, sizes=sizes)
        for ms, name in ((1.0, "archsearch"), (9.0, "sdpa cudnn"), (4.0, "sdpa flash"))
    ]
    found = judged("MoBA at 128k, forward", kernel_results(*rows), case="1x131072")
    assert (found.status, found.measured, found.wanted) == ("missed", "4.00 x", "5 x the speed of sdpa")


def test_a_peer_that_refuses_leaves_the_share_of_the_bound() -> None:
    rows = [kernel_row(ms=1.0, fraction=0.3), kernel_row(ms=None, contender=FLA)]
    rows = [row.model_copy(update={"phase": "forward+backward"}) for row in rows]
    found = judged("KDA and Gated DeltaNet, from 32k tokens, forward+backward", kernel_results(*rows), case="kda")
    assert found.status == "not measured"
    assert found.reason == f"{FLA} failed: RuntimeError: refused; ours reaches 30.0% of the bound"


def test_a_failure_of_ours_is_no_figure() -> None:
    found = judged("KDA and Gated DeltaNet, forward", kernel_results(kernel_row(ms=None)), case="kda")
    assert (found.status, found.reason) == ("not measured", "failed: RuntimeError: refused")


def test_few_heads_are_a_case_of_their_own() -> None:
    results = kernel_results(
        kernel_row(ms=1.0, tokens=65536, heads=8), kernel_row(ms=1.4, tokens=65536, heads=8, contender=FLA)
    )
    assert judged("few heads, long: 1 x 64k x 8, forward", results, case="kda").status == "missed"
    assert "no such case" in judged("KDA and Gated DeltaNet, from 32k tokens, forward", results, case="kda").reason


@pytest.mark.parametrize(("fraction", "status"), [(0.81, "met"), (0.79, "missed")])
def test_decode_is_judged_from_one_gigabyte_on(fraction: float, status: str) -> None:
    row = kernel_row("full", 1.0, phase="decode", fraction=fraction)
    assert judged("decode, at least 1 GB a step, decode", kernel_results(row), case="full").status == status
    small = kernel_row("full", 1.0, phase="decode", fraction=fraction, moved_bytes=9e8)
    assert judged("decode, at least 1 GB a step, decode", kernel_results(small), case="full").status == "not measured"


def test_the_last_of_several_files_counts() -> None:
    slow, fast = (
        kernel_results(kernel_row(fraction=x), date=date) for x, date in ((0.1, "2026-01-01"), (0.3, "2026-02-01"))
    )
    assert judged("KDA and Gated DeltaNet, forward", fast, slow, case="kda").measured == "30.0% of bound"


def test_models_are_judged_on_the_backbone_of_the_target() -> None:
    rows = [
        model_row("full*8", "decode", 0.030, 1.0),
        model_row("[kda kda kda full]*2", "decode", 0.010, 1.0),
        model_row("full*8", "state", 1000.0, 1.0),
        model_row("[kda kda kda full]*2", "state", 300.0, 1.0),
    ]
    time, memory = (judged(name, model_results(*rows)) for name in ("time per decoded token", "state memory"))
    assert (time.status, time.measured) == ("met", "3.00 x")
    assert (memory.status, memory.measured) == ("missed", "30.0%")
    assert judged("state memory", model_results(*rows, d_model=512)).status == "not measured"
    short = [row.model_copy(update={"context": 8192}) for row in rows]
    assert judged("state memory", model_results(*short)).status == "not measured"
