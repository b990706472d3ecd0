"""Targets: what the kernels are meant to reach on an H200 in bfloat16 with heads of 128, judged by result files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from archsearch.bench.results.schema import OURS, KernelRow, ModelRow, Results

FLA, FLEX, SDPA = ("flash-linear-attention",), ("flex_attention",), ("sdpa cudnn", "sdpa flash")
LONG, HEAD_DIM, CARD = 32768, 128, "H200"
BULK_BYTES = 1e9
ROOM = 1.02
"""Of a share of memory: recurrent states and convolutions come on top of it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One line of the table of targets: ``measured`` is empty where ``status`` is "not measured", for `reason`."""

    target: str
    case: str
    wanted: str
    measured: str
    status: Literal["met", "missed", "not measured"]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class KernelTarget:
    """At each case of these ops and phase that `where` holds for: with ``peers`` the time of the fastest of them over
    ours must be at least ``least``, without them the share of the bound."""

    title: str
    ops: Sequence[str]
    phase: str
    least: float
    peers: Sequence[str] = ()
    where: Callable[[KernelRow], bool] = lambda row: True

    @property
    def wanted(self) -> str:
        """For people."""
        return (
            f"{self.least:g} x the speed of {self.peers[0].split()[0]}" if self.peers else f"{self.least:.0%} of bound"
        )

    def covers(self, row: KernelRow) -> bool:
        """Whether the target is about this row's case."""
        return row.op in self.ops and row.phase == self.phase and row.head_dim == HEAD_DIM and self.where(row)


def _tokens(row: KernelRow) -> int:
    return row.batch * row.tokens


def _few_heads(row: KernelRow) -> bool:
    return (row.batch, row.tokens, row.heads) == (1, 65536, 8)


def _sized(tokens: int, **sizes: int) -> Callable[[KernelRow], bool]:
    return lambda row: (row.batch, row.tokens) == (1, tokens) and row.sizes == sizes


_TWO, _THREE = ("kda", "gated-deltanet"), ("retnet", "mamba2", "gla")
_BOTH = "forward+backward"
KERNEL_TARGETS: Sequence[KernelTarget] = (
    KernelTarget(
        title="KDA and Gated DeltaNet, 8k tokens",
        ops=_TWO,
        phase="forward",
        least=1.0,
        peers=FLA,
        where=lambda row: _tokens(row) == 8192,
    ),
    KernelTarget(
        title="KDA and Gated DeltaNet, from 32k tokens",
        ops=_TWO,
        phase="forward",
        least=1.3,
        peers=FLA,
        where=lambda row: _tokens(row) >= LONG and not _few_heads(row),
    ),
    KernelTarget(title="KDA and Gated DeltaNet", ops=_TWO, phase="forward", least=0.2),
    KernelTarget(
        title="KDA and Gated DeltaNet, from 32k tokens",
        ops=_TWO,
        phase=_BOTH,
        least=1.2,
        peers=FLA,
        where=lambda row: _tokens(row) >= LONG,
    ),
    KernelTarget(title="retnet, mamba2, gla", ops=_THREE, phase=_BOTH, least=1.2, peers=FLA),
    KernelTarget(
        title="few heads, long: 1 x 64k x 8", ops=_TWO, phase="forward", least=1.5, peers=FLA, where=_few_heads
    ),
    KernelTarget(
        title="window 4096 at 64k",
        ops=("window",),
        phase=_BOTH,
        least=1.0,
        peers=FLEX,
        where=_sized(65536, window=4096),
    ),
    *(
        KernelTarget(title=title, ops=(op,), phase=phase, least=least, peers=SDPA, where=where)
        for title, op, where, goals in (
            ("MoBA at 128k", "moba", _sized(131072, block_size=512, top_k=3), {"forward": 5.0, _BOTH: 4.0}),
            ("NSA at 64k", "nsa", _sized(65536, block_size=64, top_k=16, window=512), {"forward": 3.0, _BOTH: 2.0}),
        )
        for phase, least in goals.items()
    ),
    KernelTarget(
        title="decode, at least 1 GB a step",
        ops=("full", "window", "kda", "gated-deltanet", "mamba2"),
        phase="decode",
        least=0.8,
        where=lambda row: row.measured is None or row.measured.moved_bytes >= BULK_BYTES,
    ),
)


def judge_targets(results: Iterable[Results]) -> list[Verdict]:
    """Every target in order, at each case that was measured on an H200; of a case in several files the last counts."""
    files = sorted((file for file in results if CARD in file.environment.card), key=lambda file: file.environment.date)
    kernels = [verdict for target in KERNEL_TARGETS for op in target.ops for verdict in _of_op(target, op, files)]
    return [*kernels, *_model_verdicts(files)]


def _of_op(target: KernelTarget, op: str, files: Sequence[Results]) -> list[Verdict]:
    found = {verdict.case: verdict for file in files for verdict in _kernel_verdicts(target, op, file)}
    return list(found.values()) or [_absent(f"{target.title}, {target.phase}", target.wanted, op)]


def _absent(target: str, wanted: str, case: str) -> Verdict:
    reason = f"no such case from an {CARD} in the files"
    return Verdict(target=target, case=case, wanted=wanted, measured="", status="not measured", reason=reason)


def _kernel_verdicts(target: KernelTarget, op: str, file: Results) -> Iterator[Verdict]:
    for ours in file.kernels:
        if ours.contender == OURS and ours.op == op and target.covers(ours):
            beside = [row for row in file.kernels if row.case == ours.case and row.sizes == ours.sizes]
            value, reason = _ratio(ours, beside, target.peers) if target.peers else _fraction(ours)
            yield Verdict(
                target=f"{target.title}, {target.phase}",
                case=f"{ours.op} {ours.shape}",
                wanted=target.wanted,
                measured="" if value is None else f"{value:.2f} x" if target.peers else f"{value:.1%} of bound",
                status="not measured" if value is None else "met" if value >= target.least else "missed",
                reason=reason,
            )


def _fraction(ours: KernelRow) -> tuple[float | None, str]:
    if ours.measured is None:
        return None, f"{ours.status}: {ours.reason}"
    return ours.measured.fraction, ""


def _ratio(ours: KernelRow, beside: Sequence[KernelRow], peers: Sequence[str]) -> tuple[float | None, str]:
    """The fastest peer's time over ours; else why there is none, and what share of the bound is reached."""
    if ours.measured is None:
        return _fraction(ours)
    named = [row for row in beside if row.contender in peers]
    times = [row.measured.ms.median for row in named if row.measured is not None]
    if times:
        return min(times) / ours.measured.ms.median, ""
    why = "; ".join(f"{row.contender} {row.status}: {row.reason}" for row in named) or "measured without peers"
    return None, f"{why}; ours reaches {ours.measured.fraction:.1%} of the bound"


_HYBRID, _FULL, _CONTEXT = "[kda kda kda full]*2", "full*8", 1048576


def _model_verdicts(files: Sequence[Results]) -> list[Verdict]:
    case = f"{_HYBRID} against {_FULL} at 1M, batch 1"
    time, memory = "time per decoded token", "state memory"
    found: dict[str, Verdict] = {}
    for file in files:
        if (file.model.get("d_model"), file.model.get("n_heads"), file.model.get("n_kv_heads")) != (2048, 16, 16):
            continue
        decode, state = _pair(file.models, "decode"), _pair(file.models, "state")
        if decode is not None:
            value = decode[1] / decode[0]
            found[time] = Verdict(
                target=time,
                case=case,
                wanted="2.5 x faster",
                measured=f"{value:.2f} x",
                status="met" if value >= 2.5 else "missed",
            )
        if state is not None:
            share = state[0] / state[1]
            found[memory] = Verdict(
                target=memory,
                case=case,
                wanted="25%",
                measured=f"{share:.1%}",
                status="met" if share <= 0.25 * ROOM else "missed",
            )
    return [found.get(time, _absent(time, "2.5 x faster", case)), found.get(memory, _absent(memory, "25%", case))]


def _pair(rows: Sequence[ModelRow], quantity: str) -> tuple[float, float] | None:
    """What was measured of the hybrid and of full attention."""
    values = {
        row.pattern: row.measured
        for row in rows
        if (row.quantity, row.batch, row.context) == (quantity, 1, _CONTEXT) and row.measured is not None
    }
    hybrid, full = values.get(_HYBRID), values.get(_FULL)
    return (hybrid, full) if hybrid is not None and full is not None else None
