"""Result files: what a run measured, read and written in one place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from archsearch.bench.results.schema import SCHEMA, Results
from archsearch.errors import SpecError

MAX_FILE_BYTES = 2**26
"""Far beyond the largest of ours, and read in no time: some files, as /dev/full, have no end."""


def read_results(paths: Iterable[Path]) -> list[Results]:
    """Every file in order, of a folder its ``*.json``; raises `SpecError` for one that is missing or no result file."""
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    return [_read(file) for file in files]


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


def _lines(rows: list[object]) -> str:
    return ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)


def _read(path: Path) -> Results:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SpecError(f"{path} has more than {MAX_FILE_BYTES} bytes: name a result file or a folder")
        data = json.loads(content)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror or error}): name a result file or a folder") from None
    except ValueError as error:
        raise SpecError(f"{path}: is no JSON ({error}): write one with archsearch bench") from None
    version = data.get("version") if isinstance(data, dict) else None
    if version != SCHEMA:
        raise SpecError(f"{path}: version {version} of result files, where {SCHEMA} is read: measure again")
    try:
        return Results.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(f"{path}: {where}: {first['msg']}: write one with archsearch bench") from None
