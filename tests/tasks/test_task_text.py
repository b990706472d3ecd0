"""text: files that a user names become splits that share nothing, with a digest that travels."""

from __future__ import annotations

import os
import shutil
from math import log
from pathlib import Path

import numpy as np
import pytest

from archsearch.errors import OptionsError
from archsearch.registry import Registry
from archsearch.tasks import builtin, resolve_task
from archsearch.tasks.corpus import load_corpus
from archsearch.tasks.text import Text

CAP = 2**25


def write_files(folder: Path, count: int = 64, size: int = 4000, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for number in range(count):
        file = folder / f"part{number % 4}" / f"file{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.integers(32, 127, size=size, dtype=np.uint8).tobytes())
    return folder


def runs(data: np.ndarray, length: int) -> set[bytes]:
    return {data[at : at + length].tobytes() for at in range(len(data) - length + 1)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data")


def test_splits_hold_every_byte_once_and_no_common_run(folder: Path) -> None:
    parts = load_corpus((str(folder),), CAP).parts
    assert sum(map(len, parts.values())) == 64 * 4000
    assert len(parts["validation"]) == len(parts["test"]) == 16_000
    sixteen = {split: runs(data, 16) for split, data in parts.items()}
    assert not sixteen["train"] & sixteen["validation"]
    assert not sixteen["train"] & sixteen["test"]
    assert not sixteen["validation"] & sixteen["test"]


def test_one_large_file_is_cut_into_pieces(tmp_path: Path) -> None:
    file = write_files(tmp_path, count=1, size=100_000) / "part0" / "file0.txt"
    parts = load_corpus((str(file),), CAP).parts
    assert sum(map(len, parts.values())) == 100_000
    assert not runs(parts["train"], 16) & runs(parts["validation"], 16)
    assert len(parts["test"]) > 5000


def test_copies_of_a_file_are_kept_once(folder: Path) -> None:
    before = load_corpus((str(folder),), CAP)
    shutil.copytree(folder / "part0", folder / "copies")
    after = load_corpus((str(folder),), CAP - 1)
    for split, data in before.parts.items():
        assert np.array_equal(data, after.parts[split])
    assert after.files == before.files + 16
    assert after.digest != before.digest


def test_windows_of_a_common_header_stay_in_one_split(tmp_path: Path) -> None:
    """Every file is the same header and little else, so that windows repeat across files."""
    header = bytes(np.random.default_rng(1).integers(32, 127, size=600, dtype=np.uint8))
    for number in range(256):
        (tmp_path / f"{number}.txt").write_bytes(header + str(number).encode())
    task = Text.make("short", {"seq_len": 16, "paths": (str(tmp_path),)})
    train = {row.tobytes() for row in task.train_batch(seed=0, step=0, batch_size=8000).tokens}
    held_out = {row.tobytes() for split in ("validation", "test") for row in task.evaluation(split)[""].tokens}
    assert len(train) > 500
    assert len(held_out) > 50
    assert not train & held_out


def test_the_digest_depends_on_names_and_contents_and_on_no_absolute_path(folder: Path, tmp_path: Path) -> None:
    digest = load_corpus((str(folder),), CAP).digest
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "deep")
    assert load_corpus((str(moved),), CAP).digest == digest
    (moved / "part0" / "file0.txt").rename(moved / "part0" / "renamed.txt")
    assert load_corpus((str(moved),), CAP - 1).digest != digest
    (moved / "part0" / "renamed.txt").rename(moved / "part0" / "file0.txt")
    with (moved / "part1" / "file1.txt").open("ab") as stream:
        stream.write(b"!")
    assert load_corpus((str(moved),), CAP - 2).digest != digest


def test_hidden_and_empty_files_do_not_count(folder: Path) -> None:
    digest = load_corpus((str(folder),), CAP).digest
    (folder / ".git").mkdir()
    (folder / ".git" / "objects").write_bytes(b"x" * 100)
    (folder / ".hidden").write_bytes(b"x" * 100)
    (folder / "empty.txt").touch()
    assert load_corpus((str(folder),), CAP - 1).digest == digest


def test_max_bytes_caps_what_is_read_and_is_deterministic(folder: Path) -> None:
    first, again = load_corpus((str(folder),), 50_001), load_corpus.__wrapped__((str(folder),), 50_001)
    assert sum(map(len, first.parts.values())) == 50_001
    assert first.digest == again.digest != load_corpus((str(folder),), CAP).digest


def test_windows_are_runs_of_the_file_and_targets_the_next_byte(folder: Path) -> None:
    task = Text.make("short", {"paths": (str(folder),)})
    batch = task.train_batch(seed=0, step=0, batch_size=32)
    assert np.array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    data = task.corpus.parts["train"].tobytes()
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        assert bytes([*tokens.tolist(), targets[-1]]) in data


def test_evaluation_windows_come_from_their_split(folder: Path) -> None:
    task = Text.make("short", {"paths": (str(folder),)})
    for split in ("validation", "test"):
        data = task.corpus.parts[split].tobytes()
        for label, length in (("", 128), ("2x", 256)):
            rows = task.evaluation(split)[label].tokens
            assert rows.shape == (task.evaluation_rows[split], length)
            assert all(bytes(row.tolist()) in data for row in rows)


def test_bits_are_told_by_bucket_and_beyond_the_trained_length() -> None:
    task = Text.make("short", {"seq_len": 48})
    batch = task.evaluation("validation")["2x"]
    nll = np.zeros(batch.tokens.shape)
    nll[:, :32], nll[:, 64:] = log(2), 2 * log(2)
    metrics = task.metrics("2x", batch, nll=nll, predictions=batch.targets)
    assert metrics == pytest.approx(
        {
            "bits_per_byte@2x": 1.0,
            "accuracy@2x": 1.0,
            "bits_per_byte[0-32]@2x": 1.0,
            "bits_per_byte[32-64]@2x": 0.0,
            "bits_per_byte[64-96]@2x": 2.0,
        }
    )


def test_the_default_is_the_standard_library_and_its_digest_is_recorded() -> None:
    task = Text.make()
    assert task.data_digest == load_corpus((), CAP).digest
    assert task.corpus.files > 300
    assert b"import " in task.corpus.parts["train"].tobytes()


def test_paths_are_kept_absolute_and_a_label_with_paths_reads_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.add(builtin, name="tasks")
    monkeypatch.chdir(folder)
    task = resolve_task(f'text:short(paths="part0{os.pathsep}part1")', registry)
    assert task.to_json()["options"]["paths"] == [str(folder / "part0"), str(folder / "part1")]
    monkeypatch.chdir("/")
    again = resolve_task(task.label, registry)
    assert again.to_json() == task.to_json()
    assert again.data_digest == task.data_digest


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    task = Text.make("short", {"paths": (str(tmp_path / "nowhere"),)})
    with pytest.raises(OptionsError, match=r'path ".*nowhere" does not exist: name files or folders'):
        task.train_batch(seed=0, step=0, batch_size=1)


def test_a_device_is_refused() -> None:
    with pytest.raises(OptionsError, match=r'path "/dev/zero" is neither file nor folder'):
        load_corpus(("/dev/zero",), CAP)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "secret.txt"
    loop.write_text("x")
    with pytest.MonkeyPatch.context() as patch:

        def refuse(self: Path, mode: str) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        patch.setattr(Path, "open", refuse)
        with pytest.raises(OptionsError, match=r'cannot read ".*secret.txt": Permission denied'):
            load_corpus((str(tmp_path),), CAP)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no bytes in .*small"),
        (b"tiny", r"part of the 1 files has \d+ bytes and sequences need 129: name at least 2064 bytes"),
    ],
    ids=["empty", "tiny"],
)
def test_too_little_text_is_an_error_with_the_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "small").write_bytes(content)
    with pytest.raises(OptionsError, match=message):
        Text.make("short", {"paths": (str(tmp_path / "small"),)}).evaluation("test")
