"""Every check passes: a sample of each interpreted, on a card all cases of every row."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from known_checks import BUILT_IN, DEVICE, Tiling, known_checks
from triton.runtime.interpreter import InterpretedFunction

from archsearch.bench.builds import all_builds
from archsearch.kernels import Key, Table
from archsearch.kernels.config import tables
from archsearch.proving import Attempt, Case, Check
from archsearch.proving.attempt import attempt_row, poisoned
from archsearch.registry import load_registry


def test_a_check_of_a_row(check: Check, case: Case, key: Key, candidate: int | None, dtype: torch.dtype) -> None:
    attempt = Attempt(key=key, device=DEVICE, dtype=dtype, whole=DEVICE.type == "cuda", candidate=candidate)
    with poisoned(DEVICE):
        assert check.try_case(attempt, case).fault == ""


@pytest.mark.skipif(DEVICE.type == "cuda", reason="on a card every row and candidate is tried (-m gpu)")
def test_a_check_of_other_tiles(tiled_check: Check, case: Case, tiling: Tiling) -> None:
    attempt = Attempt(device=DEVICE, dtype=torch.float32, **tiling._asdict())
    with poisoned(DEVICE):
        assert tiled_check.try_case(attempt, case).fault == ""


def test_every_table_has_checks() -> None:
    places = {f"{table.package}.table" for table in tables.values()} & sys.modules.keys()
    ours = {held.op for place in places for held in vars(sys.modules[place]).values() if isinstance(held, Table)}
    assert ours == set(known_checks())


def test_a_first_use_tries_every_check_with_cases_that_there_are() -> None:
    for checks in known_checks().values():
        for check in checks:
            assert [case for case in check.samples if case not in check.cases] == [], check.name
            assert len({check.label(case) for case in check.cases}) == len(check.cases)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("op", sorted(known_checks()))
def test_a_first_use_launches_every_kernel_of_a_row(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreted, in the smallest row: a kernel that no first use meets would be taken unproven."""
    run, launched = InterpretedFunction.run, set()

    def noting(self: Any, *args: Any, **options: Any) -> Any:
        launched.add(self.fn.__name__)
        return run(self, *args, **options)

    monkeypatch.setattr(InterpretedFunction, "run", noting)
    checks = known_checks()[op]
    key = next(key for key in checks[0].table.rows if key[0] == "sm_90")
    found = attempt_row(Attempt(key=key, device=torch.device("cpu"), dtype=torch.float32), checks)
    assert found.fault == ""
    builds = all_builds(load_registry(environ=BUILT_IN), "sm_90")
    assert {build.fn.fn.__name__ for build in builds if build.op == op} <= launched
