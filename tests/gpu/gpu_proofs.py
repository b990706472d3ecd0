"""Which rows of the tables passed all of their checks on the card, and the lists that `auto` reads."""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from archsearch.bench.environment import environment
from archsearch.evidence.proofs import Proof, Proofs, proven_source
from archsearch.kernels import Key, Table, arch_of
from archsearch.kernels.config import tables


@dataclass
class Ledger:
    """The checks that each row of a table needs, by test id, and the tests that passed."""

    planned: dict[tuple[str, Key], set[str]] = field(default_factory=lambda: defaultdict(set))
    passed: set[str] = field(default_factory=set)

    def plan(self, item: pytest.Item) -> None:
        """A test that carries the mark `proves(TABLE)` and has a parameter `key` is a check of that row."""
        for mark in item.iter_markers("proves"):
            table: Table = mark.args[0]
            self.planned[table.op, item.callspec.params["key"]].add(item.nodeid)  # type: ignore[attr-defined]

    def record(self, report: pytest.TestReport) -> None:
        """Only what ran and passed counts: neither what was skipped nor what was deselected."""
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    def proven(self) -> list[tuple[str, Key]]:
        """Rows whose checks all passed."""
        return [row for row, needed in self.planned.items() if needed <= self.passed]


def refuse_partial_runs(config: pytest.Config) -> None:
    """Raises `UsageError` where --write-proofs is given with single tests, of which a row would need more."""
    single = [argument for argument in config.args if "::" in argument]
    if config.getoption("--write-proofs") and single:
        raise pytest.UsageError(f"--write-proofs with {single[0]}: name whole files, or use -k to leave out whole rows")


def write_proofs(ledger: Ledger, folder: Path | None) -> list[Path]:
    """Adds a proof for each proven row to the list of its package, or below `folder` to that of its name."""
    by_package: dict[str, list[tuple[str, Key]]] = defaultdict(list)
    for op, key in ledger.proven():
        by_package[tables[op].package].append((op, key))
    return [_add(package, [_proof(op, key) for op, key in rows], folder) for package, rows in by_package.items()]


def _proof(op: str, key: Key) -> Proof:
    here = environment(torch.device("cuda"))
    arch, head_dim, chunk = key
    assert arch == arch_of(torch.device("cuda")), "a row of another architecture ran"
    return Proof(
        op=op,
        arch=arch,
        head_dim=head_dim,
        chunk=chunk,
        source=proven_source(tables[op].package),
        card=here.card,
        driver=here.driver,
        torch=here.torch,
        triton=here.triton,
        ptxas=here.ptxas,
        date=here.date,
    )


def _add(package: str, new: list[Proof], folder: Path | None) -> Path:
    """Whoever else adds to the same list waits. A row's older proof with the same Triton gives way."""
    path = (Path(str(files(package))) if folder is None else folder / package) / Proofs.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        Proofs.add(path, new)
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in the folder among the processes that ask."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
