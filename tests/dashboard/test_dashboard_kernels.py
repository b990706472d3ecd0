"""Kernel figures on the page of the mixers: from result files, by mixer, and a sentence for a file that is none."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from archsearch_dashboard.queries.kernels import (
    CORE,
    FIGURE_COLUMNS,
    FORM_COLUMNS,
    RESULTS,
    forms_table,
    held_results,
    kernel_figures,
    owners_of_ops,
    rows_table,
)
from dashboard_samples import open_page, registry
from results_samples import kernel_results, kernel_row
from streamlit.testing.v1 import AppTest

from archsearch.bench.results import write_results
from archsearch.evidence.kept import kept_path
from archsearch.evidence.proofs import SHARED, Proof, Proofs, proven_source
from archsearch.hookspecs import hookimpl
from archsearch.kernels import Table
from archsearch.op_forms import ELSEWHERE, op_forms, registered_tables, tables_of
from archsearch.registry import Registry
from archsearch.testing.toy import ToyPlugin

OURS = "archsearch_plugins"


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
    assert rows_table(full).empty
    package = "archsearch_plugins.full.triton"
    row = {"op": "op", "arch": "sm_90", "head_dim": 64, "chunk": 0, "card": "H200", "driver": "580", "ptxas": "12.8"}
    now = {"package": package, "torch": version("torch"), "triton": version("triton"), "date": "2026-01-01", **row}
    passed = Proof(**now, source=proven_source(package), cases=9)
    failed = passed.model_copy(update={"dtype": "float32", "fault": "lengths: output 0 is off by 0.5"})
    stale = passed.model_copy(update={"head_dim": 128, "source": "other"})
    other = passed.model_copy(update={"package": "archsearch_plugins.moba.triton"})
    Proofs(records=(passed, failed, stale, other)).write(kept_path())
    found = rows_table(full)
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
    assert list(found.columns) == ["op", "row", "dtype", "form", "why", "card", "proven"]
    core = passed.model_copy(update={"package": SHARED, "op": "gates", "source": proven_source(SHARED)})
    Proofs(records=(passed, core)).write(kept_path())
    assert rows_table(full)[["op", "form"]].to_numpy().tolist() == [["gates", "triton"], ["op", "triton"]]
    monkeypatch.setenv("ARCHSEARCH_PROVE", "never")
    never = rows_table(full)
    assert set(never["form"]) == {"pytorch"}
    assert set(never["why"]) == {"ARCHSEARCH_PROVE=never: no kernel is taken, though it passed 9 cases"}


H200 = "NVIDIA H200, 580, 9.0"
DTYPES = ("bfloat16", "float32")


def proofs_of(table: Table, *, card: str = "NVIDIA H200", days: int = 1, fault: str = "") -> list[Proof]:
    """That every row of a table was put to the proof in both dtypes, on as many days."""
    rows = [(key, dtype) for key in table.rows if key[0] == "sm_90" for dtype in DTYPES]
    return [
        Proof(
            op=table.op,
            package=table.package,
            arch="sm_90",
            head_dim=key[1],
            chunk=key[2],
            source=proven_source(table.package),
            card=card,
            driver="580",
            torch=version("torch"),
            triton=version("triton"),
            ptxas="12.8",
            date=f"2026-01-{1 + number % days:02}",
            dtype=dtype,
            cases=9,
            fault=fault,
        )
        for number, (key, dtype) in enumerate(rows)
    ]


@pytest.fixture
def forms_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[Proof]], pd.DataFrame]:
    """The table of the forms by op where the driver tells of some cards, and some rows were put to the proof."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    loaded = registry()

    def told(cards: str, proofs: list[Proof]) -> pd.DataFrame:
        monkeypatch.setattr("archsearch.kernels.machine.told_by", lambda *command: cards)
        Proofs(records=tuple(proofs)).write(kept_path())
        return forms_table(op_forms(loaded)).set_index("op")

    return told


def test_every_op_has_a_form_where_nothing_is_known(forms_of: Callable[..., pd.DataFrame]) -> None:
    none = forms_of("none", [])
    ops = {op.table for mixer in registry().mixers() for op in registry().measured(mixer.name).ops()}
    assert {*none.index} >= {*ops, "gates", "gated_norm", "short_conv", "unit_length"} - {""}
    assert {(*row,) for row in none[["form", "card", "why", "proven"]].to_numpy()} == {
        ("PyTorch", "none (here)", "no NVIDIA card is here", "")
    }
    card = forms_of(H200, [])
    assert set(card["form"]) == {"PyTorch"}
    assert set(card["card"]) == {"NVIDIA H200, driver 580 (here)"}
    assert set(card["why"]) == {"not proven yet: their first use on this card proves them"}


def test_what_is_proven_says_when_and_on_which_card(forms_of: Callable[..., pd.DataFrame]) -> None:
    full, moba, gates = (tables_of(package)[-1] for package in (f"{OURS}.full", f"{OURS}.moba", SHARED))
    passed, failed = proofs_of(full, days=3), proofs_of(moba, fault="lengths: output 0 is off by 0.5")
    known = forms_of(H200, [*passed, *failed[:3], *proofs_of(gates)[:1]])
    told = ["form", "card", "why", "proven"]
    here = "NVIDIA H200, driver 580 (here)"
    assert known.loc["full_attention", told].tolist() == [
        "Triton",
        here,
        "10 of 10 rows passed",
        "2026-01-01 to 2026-01-03",
    ]
    assert known.loc["moba_attention", told].tolist() == [
        "PyTorch",
        here,
        "sm_90 D=16 bfloat16 and 2 more: failed: lengths: output 0 is off by 0.5; "
        "5 not proven yet: their first use on this card proves them",
        "2026-01-01",
    ]
    assert known.loc[gates.op, "form"] == "Triton and PyTorch"
    assert known.loc[gates.op, "why"].startswith("1 of 10 rows passed; 9 not proven yet")


def test_every_card_that_rows_were_proven_on_is_told_beside_this_machine(
    forms_of: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reason once, however many rows have it, and no more reasons than a cell holds."""
    (full,) = tables_of(f"{OURS}.full")
    faults = [proof.model_copy(update={"fault": f"case {n}"}) for n, proof in enumerate(proofs_of(full, card="H100"))]
    known = forms_of("none", [*proofs_of(full), *faults]).loc["full_attention"]
    assert known["card"].tolist() == ["none (here)", "H100, driver 580", "NVIDIA H200, driver 580"]
    assert known["form"].tolist() == ["PyTorch", "PyTorch", "Triton"]
    assert known["why"].iloc[1].endswith("7 further reasons: archsearch kernels list has them")
    monkeypatch.setattr("archsearch.op_forms.triton_version", lambda: None)
    bare = forms_of(H200, []).loc["full_attention"]
    assert bare["why"] == 'Triton is not installed (pip install "archsearch[kernels]")'


def test_a_list_in_a_package_holds_on_every_card_of_its_architecture(
    forms_of: Callable[..., pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    (full,) = tables_of(f"{OURS}.full")
    listed = tuple(proof.model_copy(update={"package": ""}) for proof in proofs_of(full, card="H100"))
    monkeypatch.setattr(Proofs, "holders", lambda package: [package] if package == full.package else [])
    monkeypatch.setattr(Proofs, "listed", lambda package: listed)
    known = forms_of(H200, []).loc["full_attention"]
    assert known["form"].tolist() == ["Triton", "Triton"]
    assert known["card"].tolist() == ["NVIDIA H200, driver 580 (here)", "H100, driver 580"]


def test_a_mixer_without_kernels_and_one_whose_tables_stand_elsewhere() -> None:
    mixed = Registry()
    mixed.add(NoKernels())
    mixed.add(ElsewherePlugin(), name="elsewhere")
    told = {form.mixer: form for form in op_forms(mixed)}
    assert (told["toy"].form, told["toy"].why) == ("pytorch", "it has no kernels of its own")
    assert told["elsewhere"].why == ELSEWHERE
    (full,) = tables_of(f"{OURS}.full")
    assert registered_tables(mixed).keys() >= {full.op, "gates"}
    assert [form.op for form in op_forms(mixed, load=True) if form.mixer == "elsewhere"] == [full.op]


class NoKernels(ToyPlugin):
    pass


class Elsewhere(ToyPlugin):
    name = "elsewhere"


class ElsewherePlugin:
    @hookimpl
    def register_mixers(self, register: Callable[[Elsewhere], None]) -> None:
        register(Elsewhere())

    @hookimpl
    def register_kernels(self, register: Any) -> None:
        (full,) = tables_of(f"{OURS}.full")
        register("elsewhere", lambda arch: (), checks=lambda: [SimpleNamespace(table=full)])


def test_the_page_tells_the_form_of_every_op_on_every_card(
    forms_of: Callable[..., pd.DataFrame], empty_url: str
) -> None:
    (full,) = tables_of(f"{OURS}.full")
    many = [proof for card in ("NVIDIA H200", "H100", "A100", "B200") for proof in proofs_of(full, card=card)]
    wanted = forms_of(H200, many)
    app = open_page("mixers", mixer="full")
    assert not app.exception
    assert any("on some card those of 1 are taken" in text.value for text in app.markdown)
    shown = forms_shown(app)
    assert shown[shown["op"].isin(wanted.index)].set_index("op").equals(wanted)
    rows = [frame.value for frame in app.dataframe if "row" in frame.value]
    assert sum(map(len, rows)) == len(many)


def forms_shown(app: AppTest) -> pd.DataFrame:
    (shown,) = [frame.value for frame in app.dataframe if tuple(frame.value.columns) == FORM_COLUMNS]
    return shown


def test_the_page_shows_figures_and_names_a_broken_file(folder: Path, empty_url: str) -> None:
    (folder / "broken.json").write_text("{")
    app = open_page("mixers")
    assert not app.exception
    assert len(app.error) == 1
    assert "is no JSON" in app.error[0].value
    (figures,) = [frame.value for frame in app.dataframe if "of_bound" in frame.value]
    assert tuple(figures.columns) == FIGURE_COLUMNS
    assert len(figures) == 4


def test_the_page_says_which_run_has_not_come_to_its_end(folder: Path, empty_url: str) -> None:
    assert not open_page("mixers").warning
    cut = kernel_results(kernel_row("kda", 2.0), date="2026-11-22").model_copy(update={"complete": False})
    write_results(cut, folder / "b.json")
    (said,) = [warning.value.replace("\\", "") for warning in open_page("mixers").warning]
    assert said.startswith("The run of 2026-11-22 on NVIDIA H200 was ended early")
    assert "rows held of it: 1." in said


def test_without_files_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_url: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    assert held_results() == ([], [])
    app = open_page("mixers")
    assert not app.exception
    assert any("benchmarks/results" in info.value for info in app.info)
    assert any("of which none is taken: PyTorch runs them all" in text.value.replace("\\", "") for text in app.markdown)
    assert set(forms_shown(app)["form"]) == {"PyTorch"}
    assert any("was put to the proof yet" in caption.value for caption in app.caption)
