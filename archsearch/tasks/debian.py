"""Debian: texts that packages of Debian and Ubuntu install, for long contexts without a network."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

from archsearch.errors import OptionsError

Debian = Literal["anarchism", "bible-kjv-text"]
"""Names of packages."""

ROOT = Path("/")
"""Where packages are installed; another folder for tests."""

_ANARCHISM, _BIBLE = "usr/share/doc/anarchism/markdown", "usr/lib/bible.data"
_TABLE = 0x58
"""Where the file of the Bible has the number of its parts and where each begins, as big-endian words of 32 bits."""
_MAGIC, _COMPRESS = b"EC02Compressed", b"\x1f\x9d\x90"
"""How that file begins, and the header that its parts lack: they are what `compress` writes, with codes of 16 bits."""


def texts(name: Debian) -> Iterator[tuple[str, partial[bytes]]]:
    """Each text of a package by its name, as a call that reads it; raises `OptionsError` with the command that installs
    the package where it is not there."""
    if name == "bible-kjv-text":
        yield "bible.txt", partial(_bible, _found(_BIBLE, name))
        return
    for file in sorted(_found(_ANARCHISM, name).glob("*.md*")):
        yield file.name.removesuffix(".gz"), partial(_markdown, file)


def _found(place: str, package: str) -> Path:
    path = ROOT / place
    if not path.exists():
        raise OptionsError(
            f'corpus = "{package}" is not on this machine, which has no {path}: apt-get install {package}, here and on '
            "every worker; where an image keeps /usr/share/doc out, `dpkg -x` its package and name the folder in paths"
        )
    return path


def _markdown(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if file.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise OptionsError(f"cannot read {file} ({error}): install its package again") from None


def _bible(file: Path) -> bytes:
    if shutil.which("gzip") is None:
        raise OptionsError('corpus = "bible-kjv-text" needs the program gzip: apt-get install gzip')
    try:
        content = file.read_bytes()
        if not content.startswith(_MAGIC):
            raise ValueError("it is of another format")
        (count,) = struct.unpack_from(">I", content, _TABLE)
        starts = [*struct.unpack_from(f">{count}I", content, _TABLE + 4), len(content)]
        return b"".join(_expanded(content[start:end]) for start, end in pairwise(starts))
    except (OSError, ValueError, struct.error, subprocess.CalledProcessError) as error:
        raise OptionsError(f"cannot read {file} ({error}): install bible-kjv-text again") from None


def _expanded(part: bytes) -> bytes:
    return subprocess.run(["gzip", "-dc"], input=_COMPRESS + part, capture_output=True, check=True).stdout
