"""Texts of Debian packages: found where they are installed, and refused with the command where they are not."""

from __future__ import annotations

import gzip
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from archsearch.errors import OptionsError
from archsearch.tasks import debian
from archsearch.tasks.corpus import load_corpus
from archsearch.tasks.text import Text

PROSE = np.random.default_rng(3).integers(97, 123, size=(8, 6000), dtype=np.uint8)

LZW = bytes([0x61, 0xC4, 0x8C, 0x01])
"""What `compress` writes of "abc" after its header: three codes of nine bits, the lowest first."""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(debian, "ROOT", tmp_path)
    load_corpus.cache_clear()
    return tmp_path


def test_essays_are_read_packed_or_not(root: Path) -> None:
    folder = root / "usr/share/doc/anarchism/markdown"
    folder.mkdir(parents=True)
    for number, text in enumerate(PROSE):
        packed = number % 2
        name = f"sec{number}.md{'.gz' if packed else ''}"
        (folder / name).write_bytes(gzip.compress(text.tobytes()) if packed else text.tobytes())
    task = Text.make("short", {"corpus": "anarchism"})
    assert sum(map(len, task.corpus.parts.values())) == PROSE.size
    assert task.corpus.files == len(PROSE)
    assert task.label == 'text:short(corpus="anarchism")'
    assert task.train_batch(seed=0, step=0, batch_size=4).tokens.min() >= 97
    assert Text.make("short", {"corpus": "anarchism", "max_bytes": 9000}).data_digest != task.data_digest


def test_the_bible_is_expanded_part_by_part(root: Path) -> None:
    assert subprocess.run(["gzip", "-dc"], input=b"\x1f\x9d\x90" + LZW, capture_output=True).stdout == b"abc"
    head = b"EC02Compressed Data File".ljust(0x58, b"\0")
    starts = [0x58 + 4 + 8, 0x58 + 4 + 8 + len(LZW)]
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/bible.data").write_bytes(head + struct.pack(">3I", 2, *starts) + LZW + LZW)
    ((name, read),) = debian.texts("bible-kjv-text")
    assert (name, read()) == ("bible.txt", b"abcabc")
    (root / "usr/lib/bible.data").write_bytes(b"something else")
    with pytest.raises(OptionsError, match=r"of another format.*install bible-kjv-text again"):
        read()


@pytest.mark.parametrize("package", ["anarchism", "bible-kjv-text"])
def test_a_package_that_is_not_there_is_refused_with_the_command(package: str) -> None:
    with pytest.raises(OptionsError, match=f"apt-get install {package}, here and on every worker"):
        Text.make("short", {"corpus": package}).train_batch(seed=0, step=0, batch_size=4)


def test_paths_and_a_package_are_not_both_read() -> None:
    with pytest.raises(OptionsError, match="two things to read: drop one"):
        Text.make("short", {"corpus": "anarchism", "paths": ["/tmp"]})
