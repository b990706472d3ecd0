"""The checks that prove rows on a card, as tests: there over every row, candidate and case (-m gpu).

Where there is no card, one case of each check runs in the default run under Triton's interpreter, in the first and
smallest row of its table, so that no check is first tried on a card; and every other row and candidate that has tiles
of its own in the slow run, a few of them in the default one, so that none is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from known_checks import DEVICE, Tiling, known_checks, tilings

from archsearch.kernels import arch_of
from archsearch.proving import Case, Check
from archsearch.proving.rows import dtype_named, dtypes_of

NO_CARD = "no CUDA device here: a kernel is proven on a card only (--interpreted tries the checks on the CPU)"


SOON = {"gates": "rates", "unit_length": "lengths", "gated_norm": "lengths", "latent_attention_absorbed": "in splits"}
"""By op a check of a candidate that costs little, for the default run."""
SOON_ROWS = {"unit_length", "gated_norm", "indexed_choice", "latent_attention_absorbed"}
"""Ops whose first check costs little in every row."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tiled_check" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--interpreted")
        metafunc.parametrize(("tiled_check", "case", "tiling"), list(_of_tilings(whole=whole)))
    elif "check" in metafunc.fixturenames:
        every = DEVICE.type == "cuda" or metafunc.config.getoption("--interpreted")
        found = [case for checks in known_checks().values() for check in checks for case in _cases(check, every=every)]
        metafunc.parametrize(("check", "case", "key", "candidate", "dtype"), found)


def _cases(check: Check, *, every: bool) -> Iterator[Any]:
    arch = arch_of(DEVICE)
    keys = [key for key in check.table.rows if key[0] == arch][: None if every else 1]
    for key in keys:
        for candidate in (None, *check.table.numbers(key)) if every else (None,):
            for name in dtypes_of(DEVICE):
                for case in check.cases if every else check.samples[:1]:
                    label = f"{_label(check, case, Tiling(key, candidate))}-{name}"
                    marks = [pytest.mark.gpu] if every else []
                    yield pytest.param(check, case, key, candidate, dtype_named(name), id=label, marks=marks)


def _of_tilings(*, whole: bool) -> Iterator[Any]:
    """Of each row and candidate with tiles of its own, on either architecture: every case; or those of a first use, of
    a row the first of each check."""
    for op, checks in known_checks().items():
        for tiling in tilings(checks[0].table):
            row = tiling.candidate is None and not tiling.exact
            for check in checks:
                first = check.samples[:1] if row else check.samples
                for case in check.cases if whole else first:
                    row_soon = row and op in SOON_ROWS and check is checks[0]
                    soon = row_soon or (tiling.candidate == 0 and SOON.get(op) == check.name)
                    marks = [] if soon and case is check.samples[0] else [pytest.mark.slow]
                    yield pytest.param(check, case, tiling, id=_label(check, case, tiling), marks=marks)


def _label(check: Check, case: Case, tiling: Tiling) -> str:
    return f"{check.table.op}-{tiling.label}-{check.label(case)}".replace(" ", "-")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    asked = config.option.markexpr == "gpu"
    if asked and not (torch.cuda.is_available() or config.getoption("--interpreted")):
        terminalreporter.write_line(NO_CARD)
