"""The checks that prove rows on a card, as tests: there over every row and case (-m gpu).

Where there is no card, one case of each check runs in the default run under Triton's interpreter, in the first and
smallest row of its table, so that no check is first tried on a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from known_checks import DEVICE, known_checks

from archsearch.kernels import arch_of
from archsearch.proving import Check
from archsearch.proving.rows import DTYPES, ON_THE_CPU, dtype_named

NO_CARD = "no CUDA device here: a kernel is proven on a card only (--interpreted tries the checks on the CPU)"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "check" in metafunc.fixturenames:
        every = DEVICE.type == "cuda" or metafunc.config.getoption("--interpreted")
        found = [case for checks in known_checks().values() for check in checks for case in _cases(check, every=every)]
        metafunc.parametrize(("check", "case", "key", "dtype"), found)


def _cases(check: Check, *, every: bool) -> Iterator[Any]:
    arch = arch_of(DEVICE)
    keys = [key for key in check.table.rows if key[0] == arch][: None if every else 1]
    for key in keys:
        for name in DTYPES if DEVICE.type == "cuda" else ON_THE_CPU:
            for case in check.cases if every else check.samples[:1]:
                label = f"{check.table.op}-D{key[1]}-C{key[2]}-{name}-{check.label(case)}"
                marks = [pytest.mark.gpu] if every else []
                yield pytest.param(check, case, key, dtype_named(name), id=label.replace(" ", "-"), marks=marks)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    asked = config.option.markexpr == "gpu"
    if asked and not (torch.cuda.is_available() or config.getoption("--interpreted")):
        terminalreporter.write_line(NO_CARD)
