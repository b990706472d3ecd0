"""Tests on a card; with --write-proofs the rows whose checks all passed are listed.

Where there is no card, one case of each check runs in the default run under Triton's interpreter, in the first and
smallest row of its table, so that no check is first tried on a card; all others are skipped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gpu_proofs import Ledger, refuse_partial_runs, write_proofs
from gpu_samples import samples

NO_CARD = "no CUDA device here: a kernel is proven on a card only (--interpreted tries the tests on the CPU)"
_HERE = Path(__file__).parent
sys.path += [str(_HERE.parent / room) for room in ("plugins", "model")]  # whose cases are shared
_ledger = Ledger()


def pytest_configure(config: pytest.Config) -> None:
    refuse_partial_runs(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before any is deselected: a row is proven by all of its checks, or not at all."""
    here = [item for item in items if _HERE in item.path.parents and item.path.name.startswith("test_gpu_")]
    every = torch.cuda.is_available() or config.getoption("--interpreted")
    sampled = [] if every else samples(here)
    for item in here:
        _ledger.plan(item)
        if item in sampled:
            continue
        item.add_marker(pytest.mark.gpu)
        if not every:
            item.add_marker(pytest.mark.skip(reason=NO_CARD))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _ledger.record(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = session.config.getoption("--proofs-folder")
    if session.config.getoption("--write-proofs") and torch.cuda.is_available():
        write_proofs(_ledger, Path(folder) if folder else None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    if not (torch.cuda.is_available() or config.getoption("--interpreted")) and "gpu" in config.option.markexpr.split():
        terminalreporter.write_line(NO_CARD)


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """What is allocated next holds NaN until it is written: the memory of small and of large tensors that were."""
    if torch.cuda.is_available():
        held = [torch.full((2**17,), torch.nan, device="cuda") for _ in range(256)]
        held += [torch.full((2**26,), torch.nan, device="cuda") for _ in range(4)]
        torch.cuda.synchronize()
        del held
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
