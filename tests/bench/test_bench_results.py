"""Result files survive being written, and a file that is none is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from results_samples import kernel_results, kernel_row, model_results, model_row

from archsearch.bench.results import gather_results, read_results, write_results
from archsearch.bench.results.frames import KERNEL_COLUMNS, kernel_frame, model_frame, relative_errors
from archsearch.errors import SpecError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kernels = kernel_results(kernel_row(sizes={"window": 7}), kernel_row("gla", None))
    models = model_results(model_row("full*8", "decode", 1.0, 0.5))
    write_results(kernels, tmp_path / "deep" / "a.json")
    write_results(models, tmp_path / "deep" / "b.json")
    assert read_results([tmp_path / "deep"]) == [kernels, models]
    assert read_results([tmp_path / "deep" / "b.json"]) == [models]
    lines = (tmp_path / "deep" / "a.json").read_text().splitlines()
    assert sum(line.lstrip().startswith('{"op"') for line in lines) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "version None"),
        ('{"version": 2}', "version 2 of result files, where 1 is read"),
        ('{"version": 1, "kind": "kernels"}', "environment: Field required"),
        ('{"version": 1, "kind": "other"}', "kind: "),
    ],
    ids=["no-json", "list", "newer", "incomplete", "kind"],
)
def test_what_is_no_result_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as error:
        read_results([path])
    assert "bad.json" in str(error.value)


def test_a_missing_file_and_an_unknown_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no\.json: cannot be read"):
        read_results([tmp_path / "no.json"])
    data = kernel_results(kernel_row()).model_dump(mode="json")
    data["kernels"][0]["speed"] = 1
    (tmp_path / "odd.json").write_text(json.dumps(data))
    with pytest.raises(SpecError, match=r"kernels\.0\.speed: Extra inputs"):
        read_results([tmp_path / "odd.json"])


def test_of_a_file_that_is_cut_at_any_byte_every_whole_row_is_read(tmp_path: Path) -> None:
    whole = kernel_results(kernel_row(), kernel_row("gla", None), kernel_row("nsa"))
    path = tmp_path / "h200-kernels.json"
    write_results(whole, path)
    content = path.read_bytes()
    ends = [index for index, byte in enumerate(content) if content[index:].startswith(b'\n    {"op"')]
    read = set[int]()
    for length in range(len(content) - 1):  # the last byte is the end of the last line
        path.write_bytes(content[:length])
        found, (told,) = gather_results([path])
        assert str(path) in told
        rows = sum(content[:length].find(b"\n", start + 1) != -1 for start in ends if start < length)
        for results in found:
            assert results.kernels == whole.kernels[: len(results.kernels)]
            assert results.environment == whole.environment
            assert not results.complete
            assert len(results.kernels) == rows
            assert f"was cut: its first {rows} rows are read" in told
        read.update(len(results.kernels) for results in found)
        assert bool(found) == (content[:length].count(b"\n  },\n") == 2), "the environment and the ceilings are there"
        with pytest.raises(SpecError, match=r"is no JSON|is empty"):
            read_results([path])
    assert read == {0, 1, 2, 3}


def test_what_can_be_read_is_read_and_what_lacks_is_named(tmp_path: Path) -> None:
    kernels = kernel_results(kernel_row(), card="NVIDIA A100")
    write_results(kernels, tmp_path / "a100.json")
    for name, text in (("empty.json", ""), ("blank.json", " \n"), ("odd.json", "[]\n"), ("text.json", "a\nb\n")):
        (tmp_path / name).write_text(text)
    found, lacking = gather_results([tmp_path, tmp_path / "no.json"])
    assert found == [kernels]
    told = ("blank.json: is empty", "empty.json: is empty", "odd.json: version None", "text.json: is no JSON")
    assert [line.split(" of result")[0].split(" (")[0].split(": write")[0] for line in lacking] == [
        *(f"{tmp_path}/{each}" for each in told),
        f"{tmp_path}/no.json: cannot be read",
    ]


@pytest.mark.parametrize("path", ["/dev/full", "/dev/zero"])
def test_a_file_without_an_end_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match=f"{path} has more than 67108864 bytes: name a result file"):
        read_results([Path(path)])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="cannot write"):
        write_results(kernel_results(), tmp_path / "file" / "x.json")


def test_frames_hold_a_line_a_row() -> None:
    frame = kernel_frame([kernel_results(kernel_row(ms=2.0, fraction=0.25), kernel_row("gla", None))])
    assert tuple(frame.columns) == KERNEL_COLUMNS
    assert frame["shape"].tolist() == ["1x32768 H16 D128"] * 2
    assert frame["ms"].tolist()[0] == 2.0
    assert frame["fraction_of_bound"].tolist()[0] == 0.25
    assert frame["reason"].tolist() == ["", "RuntimeError: refused"]
    assert frame["card"].tolist() == ["NVIDIA H200"] * 2
    models = model_frame([model_results(model_row("full*8", "decode", 1.0, 0.5))])
    assert models["measured_over_predicted"].tolist() == [2.0]


def test_errors_of_the_cost_model_are_relative_to_the_first_pattern() -> None:
    rows = [model_row("full*8", "decode", 3.0, 1.0), model_row("kda*8", "decode", 0.66, 0.2)]
    assert [round(error, 6) for _, error in relative_errors(model_results(*rows))] == [0.0, 0.1]
    none = rows[0].model_copy(update={"status": "failed", "measured": None})
    assert list(relative_errors(model_results(none, rows[1]))) == []


def test_shapes_are_told_in_short() -> None:
    row = kernel_row(sizes={"block_size": 64, "top_k": 16}).model_copy(update={"kv_heads": 2})
    assert row.shape == "1x32768 H16/2 D128 block_size=64 top_k=16"
