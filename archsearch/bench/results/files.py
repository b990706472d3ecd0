"""Result files: what a run measured, read and written in one place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archsearch.bench.results.schema import SCHEMA, Results
from archsearch.errors import SpecError

MAX_FILE_BYTES = 2**26
"""Far beyond the largest of ours, and read in no time: some files, as /dev/full, have no end."""


def read_results(paths: Iterable[Path]) -> list[Results]:
    """Every file in order, of a folder its ``*.json``; raises `SpecError` for one that is missing or no result file."""
    return [_read(file) for file in _files(paths)]


def gather_results(paths: Iterable[Path]) -> tuple[list[Results], list[str]]:
    """What of these files and folders can be read, in order, and a sentence for each file that is missing, is none, or
    was cut. Of one that was cut, as where a copy of it was ended, every whole row is read."""
    found, lacking = list[Results](), list[str]()
    for file in _files(paths):
        try:
            found.append(_read(file))
        except _CutError as error:
            rows = len(error.results.kernels) + len(error.results.models)
            found.append(error.results)
            lacking.append(f"{file}: was cut: its first {rows} rows are read, what came after them is lost")
        except SpecError as error:
            lacking.append(str(error))
    return found, lacking


def write_results(results: Results, path: Path) -> None:
    """One line a row, so that a difference shows as a line; what was there is replaced whole."""
    data = results.model_dump(mode="json")
    rows = {name: data.pop(name) for name in ("kernels", "models")}
    blocks = [f'  "{name}": [\n{_lines(found)}\n  ]' if found else f'  "{name}": []' for name, found in rows.items()]
    head = json.dumps(data, indent=2).removesuffix("\n}")
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(",\n".join([head, *blocks]) + "\n}\n")
        partial.replace(path)
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror or error}: name another file") from None


def _files(paths: Iterable[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]


def _lines(rows: list[object]) -> str:
    return ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)


class _CutError(SpecError):
    """A file without its end, and what was read of it."""

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results


def _read(path: Path) -> Results:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error}): name a result file or a folder") from None
    if len(content) > MAX_FILE_BYTES:
        raise SpecError(f"{path} has more than {MAX_FILE_BYTES} bytes: name a result file or a folder")
    if not content.strip():
        raise SpecError(f"{path}: is empty: write one with archsearch bench")
    try:
        data = json.loads(content)
    except ValueError as error:
        refused = f"{path}: is no JSON ({error}): write one with archsearch bench"
        try:
            kept = _checked(path, _whole_lines(content))
        except SpecError:
            raise SpecError(refused) from None
        raise _CutError(refused, kept.model_copy(update={"complete": False})) from None
    return _checked(path, data)


def _whole_lines(content: bytes) -> Any:
    """Of a file that `write_results` wrote and that was cut, what the lines before the cut hold; None where that is
    nothing."""
    lines = content[: content.rfind(b"\n") + 1].rstrip().removesuffix(b",")
    for end in (b"}", b"]}"):
        with suppress(ValueError):
            return json.loads(lines + end)
    return None


def _checked(path: Path, data: Any) -> Results:
    version = data.get("version") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise SpecError(f"{path}: version {version} of result files, where {SCHEMA} is read: measure again")
    try:
        return Results.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(f"{path}: {where}: {first['msg']}: write one with archsearch bench") from None
