"""Proving a row: in a process of its own, by one of all processes that ask, and kept for the next."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from archsearch.errors import ArchsearchError, SpecError
from archsearch.evidence.folder import cache_folder
from archsearch.evidence.kept import keep
from archsearch.evidence.proofs import Machine, Proof, proven_source
from archsearch.evidence.records import row_text
from archsearch.evidence.standing import PROVE
from archsearch.kernels.child import Limits, python_here, run_child
from archsearch.kernels.config import Key, Table

MODULE = "archsearch.proving"
"""What the child runs."""

FIRST_USE = Limits(seconds=180.0, host_bytes=8 * 2**30)
WHOLE = Limits(seconds=900.0, host_bytes=16 * 2**30)
"""What a child may take for the cases of a first use, and for all that there are: most of it is compilation."""

WITHOUT = {"ARCHSEARCH_IMPL": "", PROVE: "never"}
"""The environment of the child, in which no other kernel is proven."""


class NotTriedError(ArchsearchError):
    """A row that could not be put to the proof here and now: nothing is known of it."""


class OutOfTimeError(NotTriedError):
    """A row whose attempt took too long, for which a busy machine may be to blame."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"it ran out of time, as on a busy machine ({fault}): a new process tries again")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table as it is used: in a dtype, on a device, with the table's configurations or with those of the
    candidate of that number."""

    table: Table
    key: Key
    dtype: str
    device: str
    machine: Machine
    candidate: int | None = None

    @property
    def label(self) -> str:
        """One name for people."""
        other = "" if self.candidate is None else f" candidate {self.candidate}"
        return f"{self.table.op} {row_text(self.key)} {self.dtype}{other}"

    def tried(self) -> Proof | None:
        """What is known of it."""
        return self.table.tried(self.key, self.dtype, self.machine, self.candidate)

    def timed_out(self) -> Proof | None:
        """What was kept of it where its last attempt ran out of time."""
        return self.table.timed_out(self.key, self.dtype, self.machine, self.candidate)


@dataclass(frozen=True, kw_only=True)
class Prover:
    """How rows are put to the proof: over all cases or over those of a first use, within limits, by the `command` of a
    child, which is given the row; ``again`` tries those too of which something is known."""

    whole: bool = False
    again: bool = False
    limits: Limits | None = None
    command: Sequence[str] = field(default=("-m", MODULE))

    def prove(self, row: Row) -> Proof:
        """The row's proof, which another process may have made meanwhile. Raises `NotTriedError`, and of it
        `OutOfTimeError` where the attempt took too long, or that of another process meanwhile."""
        before, late = row.tried(), row.timed_out()
        try:
            with _lock(row, timeout=2 * self._limits.seconds):
                found, now_late = row.tried(), row.timed_out()
                if found is not None and self._answers(found, before):
                    return found
                if now_late is not None and now_late != late:
                    raise OutOfTimeError(now_late.fault)
                return self._kept(row, self._tried(row))
        except (OSError, NotImplementedError) as error:  # no file can be locked there
            raise NotTriedError(
                f"{cache_folder()} cannot be used ({error}): name another in ARCHSEARCH_CACHE"
            ) from None
        except Timeout:
            raise NotTriedError(
                f"another process has been proving it for {2 * self._limits.seconds:g} s: a new process tries again"
            ) from None

    @property
    def most_seconds(self) -> float:
        """The longest that `prove` may take: it waits for another process for twice a child's time, and then tries."""
        return 3 * self._limits.seconds

    @property
    def _limits(self) -> Limits:
        return self.limits or (WHOLE if self.whole else FIRST_USE)

    def _answers(self, found: Proof, before: Proof | None) -> bool:
        enough = found.whole or not self.whole or not found.passed
        return enough and (not self.again or found != before)

    def _tried(self, row: Row) -> Proof:
        python, environ = python_here()
        asked = {
            "op": row.table.op,
            "key": row.key,
            "dtype": row.dtype,
            "device": row.device,
            "whole": self.whole,
            "candidate": row.candidate,
            "parent": os.getpid(),
        }
        try:
            ended = run_child([*python, *self.command, json.dumps(asked)], self._limits, {**environ, **WITHOUT})
        except OSError as error:
            raise NotTriedError(f"the process that would prove it could not be started ({error})") from None
        answer = _answer(ended.output)
        if answer.get("untried") or ended.killed or (not answer and not ended.own and not ended.late):
            raise NotTriedError(f"it could not be put to the proof: {answer.get('untried') or ended.reason}")
        if ended.reason:
            started = f" in {answer['doing']}" if answer.get("doing") else ""
            fault, cases = f"{ended.reason}{started}", answer.get("cases", 0)
            answer = {"fault": fault, "cases": cases, "error": None, "late": ended.late}
        return self._proof(row, answer)

    def _proof(self, row: Row, answer: dict[str, Any]) -> Proof:
        arch, head_dim, chunk = row.key
        error, late = answer["error"], row.timed_out()
        return Proof(
            op=row.table.op,
            package=row.table.package,
            head_dim=head_dim,
            chunk=chunk,
            source=proven_source(row.table.package),
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            dtype=row.dtype,
            config=row.table.digest(row.key, row.candidate),
            cases=answer["cases"],
            whole=self.whole,
            error=error if error is not None and math.isfinite(error) else None,
            fault=answer["fault"],
            timeouts=(late.timeouts if late else 0) + 1 if answer.get("late") else 0,
            **{**asdict(row.machine), "arch": arch},
        )

    def _kept(self, row: Row, proof: Proof) -> Proof:
        try:
            if not proof.timeouts or row.tried() is None:  # what is known outlasts an attempt that came to nothing
                keep([proof])
        except SpecError as error:
            raise NotTriedError(str(error)) from None
        if proof.timeouts:
            raise OutOfTimeError(proof.fault)
        return proof


def _answer(output: str) -> dict[str, Any]:
    """The last line of JSON that the child wrote: each says what it is about to do, or what came of it."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def _lock(row: Row, *, timeout: float) -> FileLock:
    """Held by the one process that proves a row."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    names = [row.table.package, row.label, *asdict(row.machine).values(), str(os.getuid())]
    return FileLock(folder / f"{hashlib.sha256(repr(names).encode()).hexdigest()[:16]}.lock", timeout=timeout)
