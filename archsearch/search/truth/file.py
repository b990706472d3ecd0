"""The file of a table of ground truth: its lines, read and added to while other processes do so too."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from archsearch.errors import SpecError

_NEEDED: Mapping[str, Mapping[str, type]] = {
    "table": {"spec": dict},
    "source": {"source": str},
    "run": {"pattern": str, "digest": str, "task": str, "seed": int},
}
"""What a line of each kind has at least, beside its kind."""

_BEGIN = b'{"kind": "'
"""How every line begins: by it a line that is cut is told from foreign text without a newline at its end."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, none of one that there is not. A last one that is cut, as where a process was ended while it
    wrote, is left out. Raises `SpecError` for a file that cannot be read, and for what is no line of a table."""
    try:
        with path.open("rb") as file:
            with suppress(OSError):  # where a file system has no locks, a line is read as far as it is written
                fcntl.flock(file, fcntl.LOCK_SH)
            *texts, last = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror or error}: name the file of a table") from None
    if last and not _is_cut(last):
        texts.append(last)
    found = []
    for number, text in enumerate(texts, 1):
        line = _line(text)
        if line is None:
            raise SpecError(
                f"{path}, line {number} is no line of a table of ground truth: take it out, or another file"
            )
        found.append(line)
    return found


def append(path: Path, line: Mapping[str, Any], *, first: bool = False) -> None:
    """Adds a line that no other process's can run into, in the place of one that is cut; the ``first`` one only to a
    file that has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _end_line(file)
        if not (first and file.seek(0, 2)):
            file.write(f"{json.dumps(line)}\n".encode())
            file.flush()


def _end_line(file: IO[bytes]) -> None:
    """Takes out a last line that is cut, and ends one that lacks its newline alone."""
    if not file.seek(0, 2):
        return
    file.seek(-1, 2)
    if file.read() == b"\n":
        return
    file.seek(0)
    whole = file.read()
    start = whole.rfind(b"\n") + 1
    if _is_cut(whole[start:]):
        file.truncate(start)
    else:
        file.write(b"\n")


def _is_cut(text: bytes) -> bool:
    begins = text.startswith(_BEGIN) or _BEGIN.startswith(text)
    return begins and _line(text) is None


def _line(text: bytes) -> dict[str, Any] | None:
    """A line, None for what is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kind = line.get("kind") if isinstance(line, dict) else None
    needed = _NEEDED.get(kind) if isinstance(kind, str) else None
    if needed is None or not all(type(line.get(key)) is wanted for key, wanted in needed.items()):
        return None
    return dict(line)
