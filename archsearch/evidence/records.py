"""Files of records: JSON with a head and a line a record, read, written and found in a package in one place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from archsearch.errors import SpecError

FORMAT: Literal[1] = 1
"""Version of the files; a reader refuses every other."""


def row_text(key: tuple[str, int, int]) -> str:
    """A row of a table of kernels, by architecture, head dim and chunk, for people."""
    arch, head_dim, chunk = key
    return f"{arch} D={head_dim}" + (f" chunk {chunk}" if chunk else "")


class Record(BaseModel):
    """One thing that was shown. Frozen, every key known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def identity(self) -> tuple[Any, ...]:
        """What orders records in a file; of two that are equal in it, the newer takes the older's place."""
        raise NotImplementedError


R = TypeVar("R", bound=Record)


class Records(BaseModel, Generic[R]):
    """The whole of a file. A subclass says what its files are called in a package, what they hold and how one is had
    anew, and may add fields for the head."""

    FILE: ClassVar[str]
    HOLDS: ClassVar[str]
    REMEDY: ClassVar[str]

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = FORMAT
    records: tuple[R, ...] = ()

    @classmethod
    def read(cls, path: Traversable) -> Self:
        """Raises `SpecError` for a file that is not there, or holds something else."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            reason = error.strerror or str(error)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise SpecError(f"{path}: holds no {cls.HOLDS} ({reason}): {cls.REMEDY}")

    @classmethod
    def listed(cls, package: str) -> tuple[R, ...]:
        """Every record in a package, stale ones too, none where there is no file; raises `SpecError` as `read` does."""
        path = files(package).joinpath(cls.FILE)
        return cls.read(path).records if path.is_file() else ()

    @classmethod
    def holders(cls, package: str) -> list[str]:
        """The package and those below it that have such a file, by name."""
        return list(_holding(files(package), package, cls.FILE))

    def ordered(self) -> list[R]:
        """The records by their identity."""
        return sorted(self.records, key=lambda record: record.identity)

    def text(self) -> str:
        """The text of the file: the head, then a line a record, so that a difference shows as a line."""
        data = self.model_dump(mode="json")
        del data["records"]
        lines = ",\n".join(f"    {json.dumps(record.model_dump(mode='json'))}" for record in self.ordered())
        head = json.dumps(data, indent=2).removesuffix("\n}")
        return f'{head},\n  "records": [\n{lines}\n  ]\n}}\n' if lines else f'{head},\n  "records": []\n}}\n'

    def write(self, path: Path) -> None:
        """What was there is replaced whole; raises `SpecError` where it cannot be."""
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(self.text(), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise SpecError(f"cannot write {path}: {error.strerror or error}: name another file or folder") from None

    @classmethod
    def add(cls, path: Path, new: Iterable[R]) -> None:
        """Adds records to a file, which need not be there yet; others than they replace stay as they are."""
        added = {record.identity: record for record in new}
        held = cls.read(path) if path.is_file() else cls()
        kept = [record for record in held.records if record.identity not in added]
        held.model_copy(update={"records": (*kept, *added.values())}).write(path)


def _holding(folder: Traversable, package: str, file: str) -> Iterator[str]:
    if folder.joinpath(file).is_file():
        yield package
    for below in sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name):
        if below.joinpath("__init__.py").is_file():
            yield from _holding(below, f"{package}.{below.name}", file)
