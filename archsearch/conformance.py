"""Conformance: which laws of the suite a mixer was seen to keep, by implementation and with which source."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from archsearch.errors import SpecError
from archsearch.kernels.source import digest_of, tree
from archsearch.mixer import MixerPlugin

FILE = "conformance.json"
"""Name of the records in a plugin's package."""

SUITE = "archsearch.testing"
LAWS = ("conformance.py", "reads.py")
"""The modules of the suite that decide what a law asks."""

ANY = "any"
"""The form of the laws that run the layer in no form by name, such as those of options and costs."""

Outcome = Literal["passed", "failed", "declared broken", "skipped"]


class Record(BaseModel):
    """What one run of the suite found of a mixer in one form: "reference", "triton interpreted", "triton on CARD".

    ``laws`` counts the cases of each law by outcome, none for a law that no case tried; ``failed`` names the cases
    that failed, and ``untried`` counts those that were left out because they are slow. ``version`` is the mixer's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mixer: str
    form: str
    version: int
    laws: Mapping[str, Mapping[Outcome, int]]
    failed: tuple[str, ...]
    untried: int
    source: str
    torch: str
    triton: str | None
    date: str

    def count(self, law: str, outcome: Outcome) -> int:
        """Cases of a law that came out so."""
        return self.laws.get(law, {}).get(outcome, 0)


def package_of(plugin: MixerPlugin[Any]) -> str | None:
    """The package that holds a plugin's source; None for one that was written in a notebook or a script."""
    return getattr(sys.modules.get(type(plugin).__module__), "__package__", None) or None


def records(plugin: MixerPlugin[Any]) -> list[Record]:
    """The records of a mixer in its package, stale ones too; raises `SpecError` for a file that holds none."""
    package = package_of(plugin)
    return [record for record in listed(package) if record.mixer == plugin.name] if package else []


def listed(package: str) -> list[Record]:
    """Every record in a package, none where there is no file; raises `SpecError` for a file that cannot be read."""
    path = files(package).joinpath(FILE)
    if not path.is_file():
        return []
    try:
        return [Record.model_validate(entry) for entry in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SpecError(f"{path}: holds no conformance records ({first}): delete it and write it anew") from None


def written(known: Iterable[Record]) -> str:
    """The text of the file: a line a record, by mixer and form."""
    ordered = sorted(known, key=lambda record: (record.mixer, record.form))
    return "[\n" + ",\n".join(f"  {json.dumps(record.model_dump(mode='json'))}" for record in ordered) + "\n]\n"


@cache
def source_digest(package: str) -> str:
    """Digest of all Python files of a plugin's package and of the suite's laws; the core beneath is not in it."""
    return digest_of(_sources(package))


def _sources(package: str) -> Iterator[tuple[str, Any]]:
    yield from tree(files(package))
    yield from ((f"{SUITE}/{name}", files(SUITE).joinpath(name)) for name in LAWS)
