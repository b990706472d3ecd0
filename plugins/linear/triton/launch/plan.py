"""Plans: the sizes of one call, the places of its chunks and segments, and the arguments that its kernels share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import Config, Key, Table, arch_of
from archsearch.kernels.config import Configs

from ...decays import Decay
from .. import table


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The op's inputs, dense and of one dtype: q, k `[N, H, K]` and v `[N, HV, V]` over all tokens; log_decay None,
    `[HV]`, `[N, HV]` or `[N, HV, K]`, of the kind ``decay``; and what the state is read by for what is taken away:
    ``taken`` is None for nothing, beta `[N, HV]`, or the vectors `[N, HV, K]` of a removal along k, ``early`` where
    they read before the token's decay."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    taken: Tensor | None
    decay: Decay
    scale: float
    early: bool = False

    @property
    def gates(self) -> str:
        """The kernels' name for the kind of the decay; a constant is a gate by head that stays where it is."""
        return "head" if self.decay == "constant" else self.decay

    @property
    def delta(self) -> bool:
        """Whether the update is the delta rule."""
        return self.taken is not None

    @property
    def read(self) -> bool:
        """Whether what is taken away is read by vectors of its own."""
        return self.taken is not None and self.taken.dim() == 3

    @property
    def rule(self) -> str:
        """The kernels' name for the update: "early" and "late" are removals by vectors of their own."""
        if self.read:
            return "early" if self.reads_early else "late"
        return "delta" if self.delta else "hebbian"

    @property
    def reads_early(self) -> bool:
        """Whether a token's decay is after its read: without decay that is no difference."""
        return self.early and self.read and self.decay != "none"

    @property
    def table(self) -> Table:
        """Of the kernels that serve the rule."""
        return table.REMOVAL_TABLE if self.read else table.TABLE


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One call: `length` tokens a sequence (packed: of all), `chunks` a sequence (packed: of all, at most), `pieces`
    segments a sequence of `stride` chunks each; ``configs``: of the row's kernels."""

    row: Key
    configs: Configs
    tokens: int
    sequences: int
    length: int
    chunks: int
    segments: int
    stride: int
    starts: Tensor | None
    ends: Tensor | None
    firsts: Tensor | None

    @property
    def chunk(self) -> int:
        """Tokens a chunk."""
        return self.row[2]

    @property
    def packed(self) -> bool:
        """Whether sequences lie end to end."""
        return self.firsts is not None

    @property
    def all_chunks(self) -> int:
        """Chunks of all sequences, at most."""
        return self.chunks if self.packed else self.chunks * self.sequences

    @property
    def pieces(self) -> int:
        """Segments of all sequences, at most."""
        return self.sequences * self.segments

    @property
    def has_fused(self) -> bool:
        """Whether the row has a forward whose states stay on chip."""
        return self.configs.get("fused", table.APART) != table.APART

    def config(self, kernel: str) -> Config:
        """How a kernel is compiled."""
        return self.configs[kernel]


def make_plan(inputs: Inputs, batch: int, cu_seqlens: Tensor | None, chunk_size: int) -> Plan:
    """Sizes from shapes alone: nothing on the device is waited for."""
    tokens, heads, value_dim = inputs.v.shape
    head_dim = max(inputs.q.shape[-1], value_dim)
    arch = arch_of(inputs.q.device)
    row = inputs.table.key(arch, head_dim, chunk_size)
    size = row[2]
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    length = tokens // max(batch, 1)
    if cu_seqlens is None:
        chunks = -(-length // size)
        starts, ends, firsts = None, None, None
    else:
        chunks = (length + sequences * (size - 1)) // size
        starts, ends, firsts = _places(cu_seqlens, size, chunks)
    configs = inputs.table.row(row, inputs.q.dtype)
    tile = configs["states"].tiles["V"]
    fits = not inputs.delta or inputs.q.shape[-1] <= table.WIDEST_FACTOR
    segments = _segments(sequences * heads * -(-value_dim // tile), chunks) if fits else 1
    stride = max(-(-chunks // segments), 1)
    return Plan(
        row=row,
        configs=configs,
        tokens=tokens,
        sequences=sequences,
        length=length,
        chunks=chunks,
        segments=max(-(-chunks // stride), 1),
        stride=stride,
        starts=starts,
        ends=ends,
        firsts=firsts,
    )


def _segments(programs: int, chunks: int) -> int:
    """Segments a sequence: as many as fill the card, unless they are few (the work about doubles) or short."""
    wanted = min(table.CROWD // max(programs, 1), chunks // table.SHORTEST_SEGMENT)
    return wanted if wanted >= table.FEWEST_SEGMENTS else 1


def _places(cu_seqlens: Tensor, size: int, chunks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each chunk the first row and its sequence's end (0 and 0 beyond the last chunk), of each sequence the first
    chunk."""
    bounds = cu_seqlens.to(torch.int64)
    counts = (bounds.diff() + size - 1) // size
    firsts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    index = torch.arange(chunks, device=bounds.device)
    owner = (torch.searchsorted(firsts, index, right=True) - 1).clamp_(max=len(counts) - 1)
    used = index < firsts[-1]
    starts = torch.where(used, bounds[owner] + (index - firsts[owner]) * size, 0)
    ends = torch.where(used, bounds[owner + 1], 0)
    return starts, ends, firsts.to(torch.int32)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of a kernel."""

    kernel: Any
    config: Config
    arguments: dict[str, Any]


_recorded: ContextVar[list[Launch] | None] = ContextVar("recorded", default=None)


def launch(kernel: Any, grid: tuple[int, ...], config: Config, arguments: dict[str, Any]) -> None:
    """Runs a kernel over a grid; an empty one is left out."""
    record = _recorded.get()
    if record is not None:
        record.append(Launch(kernel=kernel, config=config, arguments=arguments))
    elif all(grid):
        kernel[grid](**arguments, num_warps=config.num_warps, num_stages=config.num_stages)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """While the block runs, launches are listed instead of made; tensors may then be on the meta device."""
    record: list[Launch] = []
    token = _recorded.set(record)
    try:
        yield record
    finally:
        _recorded.reset(token)
