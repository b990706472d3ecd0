"""The bench commands: what they print, the files that they write, their exit statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from results_samples import kernel_results, kernel_row
from typer.testing import CliRunner, Result

from archsearch.bench.results import KernelRow, read_results, write_results
from archsearch.cli import app
from archsearch.errors import ArchsearchError, SpecError

MODEL = ["bench", "model", "--patterns", "full", "[kda full]", "--d-model", "32", "--heads", "2", "--vocab-size", "16"]
SHORT = ["--train", "16", "--prefill", "16", "--decode", "16"]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    done = call("bench", "kernels", "--only", "window", "--peers", "--json", folder / "kernels.json")
    assert done.exit_code == 0, done.output
    done = call(*MODEL, *SHORT, "--json", folder / "model.json")
    assert done.exit_code == 0, done.output
    assert "[kda full] decode batch 1 context 16" in done.output
    return folder


def test_files_tell_where_they_come_from(measured: Path) -> None:
    kernels, models = read_results([measured])
    assert kernels.complete
    assert models.complete
    assert kernels.environment.card.startswith("CPU")
    assert {row.op for row in kernels.kernels} == {"window"}
    assert {row.contender for row in kernels.kernels} == {"archsearch", "flex_attention", "sdpa"}
    assert kernels.ceilings.copy_bytes_per_second > 0
    assert (models.model["d_model"], models.model["impl"]) == (32, "auto")
    assert [row.pattern for row in models.models if row.quantity == "state"] == ["full", "[kda full]"]


def test_a_kernel_that_is_not_proven_is_left_out_and_the_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ARCHSEARCH_PROVE", "never")
    monkeypatch.setattr("archsearch.kernels.device.takes_kernels", lambda device: True)
    done = call("bench", "kernels", "--only", "window", "--impl", "triton", "--json", tmp_path / "kernels.json")
    assert done.exit_code == 0, done.output
    (results,) = read_results([tmp_path / "kernels.json"])
    assert {row.status for row in results.kernels} == {"not proven"}
    assert all(row.reason.startswith("window_attention sm_90 D=16 float32 is not proven") for row in results.kernels)


def test_the_report_shows_tables_and_targets(measured: Path, tmp_path: Path) -> None:
    done = call("bench", "report", measured, "--png", tmp_path / "bench.png")
    assert done.exit_code == 0, done.output
    assert "forward+backward" in done.output
    assert "no CUDA graph on a CPU" in done.output
    assert "not measured" in done.output
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_targets(measured: Path) -> None:
    done = call("bench", "report", measured, "--targets")
    assert "MoBA at 128k" in done.output
    assert "no CUDA graph" not in done.output


def test_the_report_as_data(measured: Path) -> None:
    data = json.loads(call("bench", "report", measured / "kernels.json", "--json").output)
    assert data["results"][0]["kind"] == "kernels"
    assert {one["status"] for one in data["targets"]} == {"not measured"}


def test_the_report_shows_what_there_is_and_names_what_is_missing(measured: Path, tmp_path: Path) -> None:
    """As where a step of `make gpu` ended before its first row, or a copy of a file was ended."""
    cut = tmp_path / "cut.json"
    whole = (measured / "kernels.json").read_bytes()
    cut.write_bytes(whole[: whole.rfind(b'{"op"') + 40])
    rows = len(read_results([measured / "kernels.json"])[0].kernels)
    files = (tmp_path / "none.json", cut, measured / "model.json")
    done = call("bench", "report", *files)
    assert done.exit_code == 1
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert f"missing: {tmp_path}/none.json: cannot be read (No such file or directory)" in done.output
    assert f"missing: {cut}: was cut: its first {rows - 1} rows are read" in done.output
    assert f"not complete (the run was ended, or goes on): {rows - 1} rows" in done.output
    assert "[kda full]" in done.output
    assert "MoBA at 128k" in done.output
    data = json.loads(call("bench", "report", *files, "--json").stdout)
    assert [len(file["kernels"]) for file in data["results"]] == [rows - 1, 0]
    assert [line.split(":")[0] for line in data["missing"]] == [str(files[0]), str(cut)]
    (tmp_path / "folder").mkdir()
    assert "folder: holds no result files" in str(call("bench", "report", tmp_path / "folder").exception)


def test_a_run_that_is_ended_says_so_even_before_its_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bench_ops(*given: object) -> Iterator[KernelRow]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("archsearch.bench.kernels.bench_ops", bench_ops)
    path = tmp_path / "kernels.json"
    assert call("bench", "kernels", "--only", "window", "--json", path).exit_code != 0
    (results,) = read_results([path])
    assert (results.kernels, results.complete) == ((), False)
    told = call("bench", "report", path)
    assert told.exit_code == 0
    assert "not complete (the run was ended, or goes on): 0 rows" in told.output


def test_a_picture_of_several_cards_keeps_them_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn = list[str]()
    monkeypatch.setattr(Axes, "set_yticks", lambda axes, places, labels, **_: drawn.extend(labels))
    write_results(kernel_results(kernel_row()), tmp_path / "a.json")
    write_results(kernel_results(kernel_row(), card="NVIDIA A100"), tmp_path / "b.json")
    assert call("bench", "report", tmp_path / "a.json", "--png", tmp_path / "x.png").exit_code == 0
    assert call("bench", "report", tmp_path, "--png", tmp_path / "y.png").exit_code == 0
    shape = "kda forward 1x32768 H16 D128"
    assert drawn == [shape, f"{shape} NVIDIA H200", f"{shape} NVIDIA A100"]


def test_what_cannot_be_drawn_or_read_is_said(measured: Path, tmp_path: Path) -> None:
    done = call("bench", "report", measured / "model.json", "--png", tmp_path / "x.png")
    assert isinstance(done.exception, ArchsearchError)
    assert "nothing to draw" in str(done.exception)
    assert "[kda full]" in done.output, "the tables come first"
    assert isinstance(call("bench", "report", tmp_path / "none.json").exception, SpecError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "kernels", "--only", "attentoin"], "no op is named so"),
        (["bench", "kernels", "--device", "tpu"], "--device tpu: use cuda or cpu"),
        (["bench", "model", "nothing*2"], "nothing"),
        (["bench", "model", "full", "--decode", "0"], "context"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert isinstance(done.exception, SpecError)
    assert message in str(done.exception)
