"""The measuring of ops: every contender is compared with a reference and then timed, and whatever fails is a row."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from archsearch.bench.case import Case, Contender
from archsearch.bench.clock import Clock, Timed, captured
from archsearch.bench.device import dtype_of
from archsearch.bench.fused import fused_ops
from archsearch.bench.op import BenchOp, Draw, Peer
from archsearch.bench.proven import NotProvenError, require_proven, rows_of
from archsearch.bench.results.schema import OURS, KernelRow, Measured, Rates, Spread, Status
from archsearch.bench.results.work import Ceilings, Shape
from archsearch.bench.timing import Timing, measure
from archsearch.bench.tune import tuned_run
from archsearch.errors import ArchsearchError, KernelUnavailableError, SpecError, listing
from archsearch.kernels.prove import Row
from archsearch.proving.compare import Verdict
from archsearch.registry import Registry

TUNED = f"{OURS}, tuned"
"""Ours with the configurations that ``archsearch kernels tune`` found fastest, beside the table's own."""

_LONGEST_REASON = 300


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How ops are measured: where, with which clock, about how many seconds each case, and until when; ``form`` is
    the implementation, the op's own where it is empty. ``refused`` are rows that could not be proven, and why."""

    device: torch.device
    clock: Clock
    ceilings: Rates
    peers: bool = False
    row_seconds: float = 0.5
    minutes: float = 60.0
    form: str = ""
    now: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)
    refused: dict[Row, str] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        """Whether the time is spent."""
        return self.now() - self.started > 60 * self.minutes

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 on a card, float32 elsewhere."""
        return dtype_of(self.device)


def ops_of(registry: Registry, only: str = "", first: str = "") -> list[BenchOp]:
    """The ops that the registered plugins and the core offer and whose name contains `only`, those whose name contains
    a word of `first` before all others, in the order of the words; raises `SpecError` for none."""
    offered = [op for mixer in registry.mixers() for op in registry.measured(mixer.name).ops()]
    offered += fused_ops()
    chosen = [op for op in offered if only in op.name]
    if not chosen:
        raise SpecError(f'"{only}": no op is named so; there are {listing({op.name for op in offered})}')
    words = [word.strip() for word in first.split(",") if word.strip()]
    return sorted(chosen, key=lambda op: next((rank for rank, word in enumerate(words) if word in op.name), len(words)))


def bench_ops(ops: Sequence[BenchOp], grid: str, bench: Bench) -> Iterator[KernelRow]:
    """The rows of every op at every shape of a grid: the first shapes of all ops first, so that what the time does
    not suffice for is the later shapes."""
    for rank in range(max(len(op.grids[grid]) for op in ops)):
        for op in ops:
            for shape in op.grids[grid][rank : rank + 1]:
                yield from _bench_shape(op, shape, bench)


def _bench_shape(op: BenchOp, shape: Shape, bench: Bench) -> Iterator[KernelRow]:
    for phase in op.phases:
        if bench.late:
            yield _row(op, shape, phase, OURS, "", "out of time", f"{bench.minutes:g} minutes were given")
        else:
            yield from bench_case(op, shape, phase, bench)
        _free(bench.device)


def bench_case(op: BenchOp, shape: Shape, phase: str, bench: Bench) -> list[KernelRow]:
    """The rows of one op, shape and phase: of this package, then of each peer. What kernels it runs is proven first,
    before the inputs take the card's memory."""
    own = _own(op, shape, bench)
    try:
        case = Case(op=op, shape=shape, phase=phase, draw=Draw.on(bench.device, bench.dtype))
    except torch.OutOfMemoryError as error:
        return [_row(op, shape, phase, OURS, "", "out of memory", _told(error))]
    rows: dict[str, KernelRow | None] = {}
    passed: dict[str, _Passed] = {}
    for name, make in _contenders(op, case, own, bench):
        try:
            passed[name] = _checked(case, make(), bench)
            rows[name] = None
        except _WrongError as error:
            rows[name] = _row(op, shape, phase, name, error.form, "wrong", str(error))
        except Exception as error:  # the boundary of foreign code and of kernels: a failure is a row, not the end
            rows[name] = _failed(op, shape, phase, name, error, bench)
    rows |= _timed(case, passed, bench)
    return [row for row in rows.values() if row is not None]


class _WrongError(Exception):
    """A contender whose results are not the reference's."""

    def __init__(self, form: str, fault: str) -> None:
        super().__init__(fault)
        self.form = form


@dataclass(frozen=True, kw_only=True)
class _Passed:
    """A contender whose results are right, and the call that is timed."""

    contender: Contender
    verdict: Verdict
    call: Callable[[], object]
    timed: Timed
    note: str


def _checked(case: Case, contender: Contender, bench: Bench) -> _Passed:
    verdict = case.check(contender)
    if verdict.fault:
        raise _WrongError(contender.form, verdict.fault)
    call, timed, note = _prepared(case, contender, bench)
    return _Passed(contender=contender, verdict=verdict, call=call, timed=timed, note=note)


def _timed(case: Case, passed: dict[str, _Passed], bench: Bench) -> dict[str, KernelRow | None]:
    """The rows of those that passed, timed in turn; of all of them with the reason where one cannot be timed."""
    if not passed:
        return {}
    op, shape, phase = case.op, case.shape, case.phase
    calls = {name: found.call for name, found in passed.items()}
    try:
        times = measure(calls, stopwatch=bench.clock, seconds=bench.row_seconds)
        peaks = {name: _peak_bytes(call, bench.device) for name, call in calls.items()}
    except Exception as error:  # as above
        return {name: _failed(op, shape, phase, name, error, bench) for name in passed}
    return {
        name: _row(
            op,
            shape,
            phase,
            name,
            found.contender.form,
            "measured",
            found.note,
            timed=found.timed,
            proven=found.contender.proven,
            measured=_measured(case, found, times[name], peaks[name], bench.ceilings),
        )
        for name, found in passed.items()
    }


def _own(op: BenchOp, shape: Shape, bench: Bench) -> dict[str, Callable[[], Contender]]:
    """The contenders of this package by name: the op, and the op with what was tuned for it; each once its rows are
    proven, else raising why they are not."""
    form = bench.form or op.forms[bench.device.type != "cuda"]
    plain = Contender(
        name=OURS,
        form=form,
        run=lambda x: op.run(x, form),
        reference=op.reference,
        work=op.work,
        agreeing=op.agreeing,
    )
    found = {OURS: _proven(op, shape, plain, None, bench)}
    tuned = tuned_run(op, shape.head_dim, bench.device, form)
    if tuned is not None:
        number, run = tuned
        found[TUNED] = _proven(op, shape, replace(plain, name=TUNED, run=run), number, bench)
    return found


def _proven(
    op: BenchOp, shape: Shape, contender: Contender, candidate: int | None, bench: Bench
) -> Callable[[], Contender]:
    try:
        rows = rows_of(op, shape.head_dim, bench.device, contender.form, candidate)
        ready = replace(contender, proven=require_proven(rows, bench.refused))
    except KernelUnavailableError as error:
        refusal = error

        def refused() -> Contender:
            raise refusal

        return refused
    return lambda: ready


def _contenders(
    op: BenchOp, case: Case, own: dict[str, Callable[[], Contender]], bench: Bench
) -> Iterator[tuple[str, Callable[[], Contender]]]:
    def theirs(peer: Peer) -> Contender:
        label, run = peer.prepare(case.inputs)
        agreeing = op.agreeing if peer.reference is None else 1.0
        return Contender(
            name=peer.name,
            form=label,
            run=run,
            reference=peer.reference or op.reference,
            work=peer.work or op.work,
            agreeing=agreeing,
        )

    yield from own.items()
    for peer in op.peers if bench.peers else ():
        yield peer.name, partial(theirs, peer)


def _prepared(case: Case, contender: Contender, bench: Bench) -> tuple[Callable[[], object], Timed, str]:
    """The call to be timed: a step on a card as a CUDA graph, else with the reason why it is none."""
    call = case.call(contender)
    if bench.device.type != "cuda" or case.phase != "decode":
        return call, bench.clock.timed, ""
    try:
        return captured(call), "cuda graph", ""
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.synchronize(bench.device)
        return call, bench.clock.timed, f"no CUDA graph: {_told(error)}"


def _measured(case: Case, found: _Passed, timing: Timing, peak_bytes: int, rates: Rates) -> Measured:
    work, seconds = case.work(found.contender), timing.median
    bound = Ceilings(**rates.model_dump()).bound_seconds(work)
    return Measured(
        ms=spread_of(timing),
        flops=work.flops,
        done_flops=work.done_flops,
        moved_bytes=work.moved_bytes,
        bound_ms=bound * 1e3,
        fraction=bound / seconds,
        tflops=work.flops / seconds / 1e12,
        tbps=work.moved_bytes / seconds / 1e12,
        error=found.verdict.error,
        agreeing=found.verdict.agreeing,
        peak_bytes=peak_bytes,
    )


def spread_of(timing: Timing) -> Spread:
    """In milliseconds."""
    low, high = min(timing.seconds) * 1e3, max(timing.seconds) * 1e3
    return Spread(median=timing.median * 1e3, low=low, high=high, repeats=len(timing.seconds))


def _peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most that was allocated while it ran, the inputs included; 0 where nobody counts."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


def _row(
    op: BenchOp, shape: Shape, phase: str, contender: str, form: str, status: Status, reason: str, **measured: Any
) -> KernelRow:
    return KernelRow(
        op=op.name,
        phase=phase,
        contender=contender,
        form=form,
        batch=shape.batch,
        tokens=shape.tokens,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        sizes=dict(op.sizes),
        status=status,
        reason=reason,
        **measured,
    )


def _failed(op: BenchOp, shape: Shape, phase: str, name: str, error: Exception, bench: Bench) -> KernelRow:
    status: Status = "failed"
    if isinstance(error, torch.OutOfMemoryError):
        status = "out of memory"
    elif isinstance(error, NotProvenError):
        status = "not proven"
    elif isinstance(error, ImportError | KernelUnavailableError):
        status = "unavailable"
    told = _told(error)
    error.__traceback__ = None  # it would keep the tensors of every frame alive
    _require_alive(bench.device, f"{name} at {op.name} {phase}: {told}")
    _free(bench.device)
    return _row(op, shape, phase, name, "", status, told)


def _told(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    told = first if isinstance(error, ArchsearchError) else f"{type(error).__name__}: {first}"
    return told[:_LONGEST_REASON]


def _require_alive(device: torch.device, cause: str) -> None:
    """Raises `ArchsearchError` where a failure has left the device unusable for this process."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise ArchsearchError(
            f"the card refuses all further work after {cause} ({_told(error)}): measure the other ops with --only"
        ) from None


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
