"""Every check passes: a sample of each interpreted, on a card all cases of every row."""

from __future__ import annotations

import torch
from known_checks import DEVICE, known_checks

from archsearch.kernels import Key
from archsearch.kernels.config import tables
from archsearch.proving import Attempt, Case, Check
from archsearch.proving.attempt import poisoned


def test_a_check_of_a_row(check: Check, case: Case, key: Key, dtype: torch.dtype) -> None:
    attempt = Attempt(key=key, device=DEVICE, dtype=dtype, whole=DEVICE.type == "cuda")
    with poisoned(DEVICE):
        assert check.try_case(attempt, case).fault == ""


def test_every_table_has_checks() -> None:
    ours = {op for op, table in tables.items() if table.package.startswith(("archsearch.", "archsearch_plugins."))}
    assert ours == set(known_checks())


def test_a_first_use_tries_every_check_with_cases_that_there_are() -> None:
    for checks in known_checks().values():
        for check in checks:
            assert [case for case in check.samples if case not in check.cases] == [], check.name
            assert len({check.label(case) for case in check.cases}) == len(check.cases)
