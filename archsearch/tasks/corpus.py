"""Corpus: the bytes of files and folders, dealt whole into training, validation and test, with a digest."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from archsearch.errors import OptionsError
from archsearch.tasks.debian import Debian, texts
from archsearch.tasks.sampling import Ints
from archsearch.tasks.splits import PARTS, Split

_PIECES = 64
_NOT_SOURCES = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}


def _absolute(value: Any) -> Any:
    names = value.split(os.pathsep) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str | Path) for name in names):
        return value
    return tuple(os.path.abspath(Path(name).expanduser()) for name in names)


CorpusPaths = Annotated[tuple[str, ...], BeforeValidator(_absolute)]
"""Files and folders: a list, or one text with `os.pathsep` between them. Kept absolute, so that a worker that
runs in another folder reads the same files; none means the Python standard library's own sources."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Bytes by split, each file (or piece of a large one) in one split alone.

    ``digest`` covers the names (relative to what was named) and contents of the files, and no absolute path.
    ``files`` is how many were read.
    """

    parts: Mapping[Split, NDArray[np.uint8]]
    digest: str
    files: int

    def windows(self, rng: np.random.Generator, count: int, length: int, *, split: Split) -> Ints:
        """`count` runs of `length` bytes from random places of a split: [count, length]."""
        data = self.parts[split]
        if len(data) < length:
            raise OptionsError(
                f"the {split} part of the {self.files} files has {len(data)} bytes and sequences need {length}: "
                f"name at least {PARTS * length} bytes of files, or lower seq_len"
            )
        first = rng.integers(len(data) - length + 1, size=count)
        windows: Ints = data[first[:, None] + np.arange(length)].astype(np.int64)
        return windows


@lru_cache(maxsize=8)
def load_corpus(paths: tuple[str, ...], max_bytes: int, package: Debian | None = None) -> Corpus:
    """The corpus of `paths`, or of a Debian `package` (the standard library's sources for neither), at most `max_bytes`
    of it.

    In a folder every file counts but hidden ones. Files are taken in an order by hash of their names until
    `max_bytes` are read. A 16th of the bytes each goes to validation and test: files are ordered by the hash of
    their contents, and copies of one content are kept once. A file above a 64th of the whole is cut into pieces.
    Read once a process. Raises `OptionsError` that names the path.
    """
    named: Iterator[tuple[str, Callable[[int], bytes]]]
    if package is None:
        named = ((name, partial(_head, file)) for name, file in dict.fromkeys(_listed(paths)))
    else:
        named = ((name, partial(_whole, read)) for name, read in texts(package))
    files = _read(sorted(named, key=lambda file: _sha(file[0].encode())), max_bytes)
    if not files:
        where = ", ".join(paths) or package or "the standard library"
        raise OptionsError(f"no bytes in {where}: name files that hold text")
    digests = sorted((name, _sha(content)) for name, content in files)
    overall = _sha("".join(f"{len(name)}:{name}={digest};" for name, digest in digests).encode())
    pieces = _pieces([content for _, content in files])
    return Corpus(parts=_dealt(pieces), digest=overall, files=len(files))


def _listed(paths: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """(relative name, file) of all that the paths hold."""
    if not paths:
        root = Path(sysconfig.get_path("stdlib"))
        sources = _walk(root, skip=_NOT_SOURCES)
        yield from ((name, file) for name, file in sources if name.endswith(".py"))
    for path in map(Path, paths):
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file():
            yield path.name, path
        else:
            reason = "is neither file nor folder" if path.exists() else "does not exist"
            raise OptionsError(f'path "{path}" {reason}: name files or folders that this machine has')


def _walk(root: Path, skip: frozenset[str] | set[str] = frozenset()) -> Iterator[tuple[str, Path]]:
    for folder, below, names in os.walk(root, onerror=_refuse):
        below[:] = sorted(name for name in below if name not in skip and not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield file.relative_to(root).as_posix(), file


def _read(listed: list[tuple[str, Callable[[int], bytes]]], max_bytes: int) -> list[tuple[str, bytes]]:
    files: list[tuple[str, bytes]] = []
    left = max_bytes
    for name, read in listed:
        content = read(left)
        if content:
            files.append((name, content))
        left -= len(content)
        if not left:
            break
    return files


def _head(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        _refuse(error)


def _whole(read: Callable[[], bytes], most: int) -> bytes:
    return read()[:most]


def _refuse(error: OSError) -> NoReturn:
    reason = error.strerror or str(error)
    raise OptionsError(f'cannot read "{error.filename}": {reason}: make it readable or leave it out') from None


def _pieces(contents: list[bytes]) -> list[bytes]:
    """The contents, large ones cut, each different one once, in the order of their hashes."""
    largest = -(-sum(map(len, contents)) // _PIECES)
    cut = (content[at : at + largest] for content in contents for at in range(0, len(content), largest))
    return [piece for _, piece in sorted({_sha(piece): piece for piece in cut}.items())]


def _dealt(pieces: list[bytes]) -> dict[Split, NDArray[np.uint8]]:
    share = sum(map(len, pieces)) / PARTS
    dealt: dict[Split, list[bytes]] = {"validation": [], "test": [], "train": []}
    filled = 0
    for piece in pieces:
        split: Split = "validation" if filled < share else "test" if filled < 2 * share else "train"
        dealt[split].append(piece)
        filled += len(piece)
    return {split: np.frombuffer(b"".join(part), dtype=np.uint8) for split, part in dealt.items()}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
