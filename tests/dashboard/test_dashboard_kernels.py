"""Kernel figures on the page of the mixers: from result files, by mixer, and a sentence for a file that is none."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from archsearch_dashboard.queries.kernels import (
    CORE,
    FIGURE_COLUMNS,
    RESULTS,
    forms_table,
    held_results,
    kernel_figures,
    owners_of_ops,
)
from dashboard_samples import open_page, registry
from results_samples import kernel_results, kernel_row

from archsearch.bench.results import write_results
from archsearch.evidence.kept import kept_path
from archsearch.evidence.proofs import SHARED, Proof, Proofs, proven_source


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the results, with one file, where the dashboard is started."""
    monkeypatch.chdir(tmp_path)
    rows = (kernel_row("kda", 2.0), kernel_row("window"), kernel_row("short conv"), kernel_row("moba", None))
    write_results(kernel_results(*rows), tmp_path / RESULTS / "a.json")
    return tmp_path / RESULTS


def test_each_op_stands_with_its_mixer(folder: Path) -> None:
    held, errors = held_results(folder)
    table = kernel_figures(held, registry())
    assert errors == []
    assert table["mixer"].tolist() == ["linear", "sliding", CORE, "moba"]
    first = table.iloc[0]
    assert (first["op"], first["phase"], first["shape"], first["by"]) == (
        "kda",
        "forward",
        "1x32768 H16 D128",
        "archsearch triton",
    )
    assert (first["ms"], first["spread"], first["of_bound"], first["note"]) == (2.0, "1.8 to 2.4", 0.5, "")
    assert (first["card"], first["date"]) == ("NVIDIA H200", "2026-11-21")
    assert first["versions"] == "archsearch 0.1.0, torch 2.11.0, Triton 3.6.0, driver 580"


def test_what_was_not_measured_has_its_reason_and_no_figure(folder: Path) -> None:
    last = kernel_figures(held_results(folder)[0], registry()).iloc[-1]
    assert last["note"] == "failed: RuntimeError: refused"
    assert last["spread"] == ""
    assert last[["ms", "of_bound"]].isna().all()


def test_the_ops_of_every_mixer_are_known() -> None:
    loaded = registry()
    owners = owners_of_ops(loaded)
    for mixer in loaded.mixers():
        assert {owners.get(op.name) for op in loaded.measured(mixer.name).ops()} == {mixer.name}


def test_the_form_of_every_row_that_was_put_to_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    full = registry().mixer("full")
    assert forms_table(full).empty
    package = "archsearch_plugins.full.triton"
    row = {"op": "op", "arch": "sm_90", "head_dim": 64, "chunk": 0, "card": "H200", "driver": "580", "ptxas": "12.8"}
    now = {"package": package, "torch": version("torch"), "triton": version("triton"), "date": "2026-01-01", **row}
    passed = Proof(**now, source=proven_source(package), cases=9)
    failed = passed.model_copy(update={"dtype": "float32", "fault": "lengths: output 0 is off by 0.5"})
    stale = passed.model_copy(update={"head_dim": 128, "source": "other"})
    other = passed.model_copy(update={"package": "archsearch_plugins.moba.triton"})
    Proofs(records=(passed, failed, stale, other)).write(kept_path())
    found = forms_table(full)
    assert found[["row", "dtype", "form", "why", "proven"]].to_numpy().tolist() == [
        ["sm_90 D=64", "bfloat16", "triton", "passed 9 cases", "2026-01-01"],
        ["sm_90 D=64", "float32", "pytorch", "failed: lengths: output 0 is off by 0.5", "2026-01-01"],
        [
            "sm_90 D=128",
            "bfloat16",
            "pytorch",
            "the kernels have changed: it is proven again at its next use",
            "2026-01-01",
        ],
    ]
    assert set(found["card"]) == {"H200, driver 580"}
    core = passed.model_copy(update={"package": SHARED, "op": "gates", "source": proven_source(SHARED)})
    Proofs(records=(passed, core)).write(kept_path())
    assert forms_table(full)[["op", "form"]].to_numpy().tolist() == [["gates", "triton"], ["op", "triton"]]
    monkeypatch.setenv("ARCHSEARCH_PROVE", "never")
    never = forms_table(full)
    assert set(never["form"]) == {"pytorch"}
    assert set(never["why"]) == {"ARCHSEARCH_PROVE=never: no kernel is taken, though it passed 9 cases"}


def test_the_page_shows_figures_and_names_a_broken_file(folder: Path, empty_url: str) -> None:
    (folder / "broken.json").write_text("{")
    app = open_page("mixers")
    assert not app.exception
    assert len(app.error) == 1
    assert "is no JSON" in app.error[0].value
    (figures,) = [frame.value for frame in app.dataframe if "of_bound" in frame.value]
    assert tuple(figures.columns) == FIGURE_COLUMNS
    assert len(figures) == 4


def test_without_files_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_url: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert held_results() == ([], [])
    app = open_page("mixers")
    assert not app.exception
    assert any("benchmarks/results" in info.value for info in app.info)
