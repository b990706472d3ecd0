"""An attempt: all cases of the checks of one row, in memory that holds NaN until it is written, within a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from archsearch.errors import said
from archsearch.proving.check import Attempt, Case, Check
from archsearch.proving.compare import Verdict

FIRST_SECONDS, WHOLE_SECONDS = 5.0, 60.0
"""The most that the cases of a first use, and all of them, may take beyond compilation."""

CARD_SHARE = 0.5
"""Of the card's memory, the most that they may take."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a row: how many cases were tried, the largest ratio, the first thing that was wrong, and whether
    that is only that it was `late`."""

    cases: int
    error: float
    fault: str = ""
    late: bool = False


def attempt_row(
    attempt: Attempt,
    checks: Sequence[Check],
    *,
    tell: Callable[[str, int], None] = lambda doing, cases: None,
    compiling: Callable[[], float] = lambda: 0.0,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = math.inf,
) -> Outcome:
    """Tries case after case until one fails, or until they took more than `seconds` beyond those that `compiling`
    says were spent on compilation. `tell` hears of each before it is tried."""
    error, count, start = 0.0, 0, clock()
    for check, case in cases_of(checks, whole=attempt.whole):
        doing = check.label(case)
        tell(doing, count)
        verdict = _verdict(attempt, check, case)
        count, error = count + 1, max(error, verdict.error)
        if verdict.fault:
            return Outcome(cases=count, error=error, fault=f"{doing}: {verdict.fault}")
        spent = clock() - start - compiling()
        if spent > seconds:
            fault = f"{doing}: it has run for {spent:.1f} s, {seconds:g} s is all"
            return Outcome(cases=count, error=error, fault=fault, late=True)
    return Outcome(cases=count, error=error)


def cases_of(checks: Sequence[Check], *, whole: bool) -> Iterator[tuple[Check, Case]]:
    """All cases, or those of a first use."""
    return ((check, case) for check in checks for case in (check.cases if whole else check.samples))


def _verdict(attempt: Attempt, check: Check, case: Case) -> Verdict:
    try:
        with poisoned(attempt.device):
            verdict = check.try_case(attempt, case)
        if attempt.device.type == "cuda":
            torch.cuda.synchronize(attempt.device)
        return verdict
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a kernel may raise whatever it likes: that is its verdict
        return Verdict(error=math.inf, fault=f"{type(error).__name__}: {said(error)}")


@contextmanager
def poisoned(device: torch.device) -> Iterator[None]:
    """What is allocated in the block holds NaN until it is written."""
    if device.type == "cuda":
        held = [torch.full((2**17,), torch.nan, device=device) for _ in range(256)]
        held += [torch.full((2**26,), torch.nan, device=device) for _ in range(4)]
        torch.cuda.synchronize(device)
        del held
        yield
        torch.cuda.empty_cache()
        return
    settings: Any = torch.utils.deterministic
    before, filled = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filled
