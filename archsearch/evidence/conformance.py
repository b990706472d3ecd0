"""Conformance: which laws of the suite a mixer was seen to keep, by implementation and with which source."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from archsearch.evidence.digests import source_digest
from archsearch.evidence.records import Record, Records
from archsearch.mixer import MixerPlugin

SUITE = "archsearch.testing"
"""The package that decides what a law asks."""

ANY = "any"
"""The form of the laws that run the layer in no form by name, such as those of options and costs."""

Outcome = Literal["passed", "failed", "declared broken", "skipped"]


class ConformanceRecord(Record):
    """What one run of the suite found of a mixer in one form: "reference", "triton interpreted", "triton on CARD".

    ``laws`` counts the cases of each law by outcome, none for a law that no case tried; ``failed`` names the cases
    that failed, and ``untried`` counts those that were left out because they are slow. ``version`` is the mixer's own.
    """

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

    @property
    def identity(self) -> tuple[str, str]:
        """The mixer and the form."""
        return self.mixer, self.form

    def count(self, law: str, outcome: Outcome) -> int:
        """Cases of a law that came out so."""
        return self.laws.get(law, {}).get(outcome, 0)


class ConformanceRecords(Records[ConformanceRecord]):
    """The records in a plugin's package."""

    FILE: ClassVar[str] = "conformance.json"
    HOLDS: ClassVar[str] = "conformance records"
    REMEDY: ClassVar[str] = "delete it and write it anew (pytest -p archsearch.testing.recording --write-conformance)"


def package_of(plugin: MixerPlugin[Any]) -> str | None:
    """The package that holds a plugin's source; None for one that was written in a notebook or a script."""
    return getattr(sys.modules.get(type(plugin).__module__), "__package__", None) or None


def records_of(plugin: MixerPlugin[Any]) -> list[ConformanceRecord]:
    """The records of a mixer in its package, stale ones too; raises `SpecError` for a file that holds none."""
    package = package_of(plugin)
    listed = ConformanceRecords.listed(package) if package else ()
    return [record for record in listed if record.mixer == plugin.name]


def tried_source(package: str) -> str:
    """Digest of all Python files of a plugin's package and of the suite; the core beneath is not in it."""
    return source_digest(package, SUITE)
