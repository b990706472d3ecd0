"""Cards: what the multiprocessors of an architecture hold, and the rates that no kernel on it exceeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from archsearch.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card. What a multiprocessor (SM) has of registers, shared memory in bytes, warps and programs, and what a
    program takes of them at a time, is from the CUDA C++ Programming Guide ("Technical Specifications per Compute
    Capability", "Hardware Implementation").

    Rates: ``memory`` bytes/s of a large copy and ``matrix`` FLOP/s of a large bfloat16 product; ``cache`` bytes/s
    between L2 and the SMs; ``clock`` in Hz; ``mma_share`` of the matrix rate that instructions of one warp reach, those
    of four reaching all of it; ``load_clocks`` from a load of global memory to its value where L2 has it;
    ``shared_clocks`` from a write of shared memory to its reading behind a barrier. ``source`` says where they are
    from."""

    name: str
    arch: str
    multiprocessors: int
    memory: float
    matrix: float
    cache: float
    clock: float
    mma_share: float
    load_clocks: int
    shared_bytes: int
    source: str
    registers: int = 65536
    register_unit: int = 256
    warps: int = 64
    programs: int = 32
    shared_reserved: int = 1024
    shared_unit: int = 128
    shared_clocks: int = 30
    issue_rate: int = 4
    special_lanes: int = 16

    def resident(self, *, registers: int, shared_bytes: int, num_warps: int) -> tuple[int, str]:
        """Programs that an SM holds at a time, and what keeps it from more; 0 where not one fits.

        ``registers`` are those of a thread. A warp takes them in units of 256, a program warps in fours and 1 KiB of
        shared memory more than it asks for.
        """
        warp_registers = math.ceil(max(registers, 1) * 32 / self.register_unit) * self.register_unit
        shared = math.ceil((shared_bytes + self.shared_reserved) / self.shared_unit) * self.shared_unit
        limits = {
            "registers": self.registers // warp_registers // 4 * 4 // num_warps
            if num_warps >= 4
            else self.registers // warp_registers // num_warps,
            "shared memory": self.shared_bytes // shared,
            "warps": self.warps // num_warps,
            "programs": self.programs,
        }
        least = min(limits.values())
        return least, next(name for name, limit in limits.items() if limit == least)

    def matrix_rate(self, unit: str, kind: str) -> float:
        """FLOP/s of all SMs by a matrix instruction (`ptx.Matrix`): half of bfloat16's for tf32, twice for 8 bits."""
        share = {"tf32": 0.5, "e4m3": 2.0, "e5m2": 2.0, "s8": 2.0, "f64": 0.07}.get(kind, 1.0)
        return self.matrix * share * (1.0 if unit == "wgmma" else self.mma_share)


CARDS: Mapping[str, Card] = {
    card.arch: card
    for card in (
        Card(
            name="H200",
            arch="sm_90",
            multiprocessors=132,
            memory=4.3e12,
            matrix=790e12,
            cache=8.0e12,
            clock=1.83e9,
            mma_share=0.65,
            load_clocks=260,
            shared_bytes=228 * 1024,
            source="memory and matrix measured on an H200; mma_share, latencies and cache rounded in favour of the "
            "kernel from microbenchmarks of Hopper (arXiv 2402.13499, 2501.12084)",
        ),
        Card(
            name="A100 80GB",
            arch="sm_80",
            multiprocessors=108,
            memory=1.9e12,
            matrix=312e12,
            cache=5.0e12,
            clock=1.41e9,
            mma_share=1.0,
            load_clocks=200,
            shared_bytes=164 * 1024,
            source="data sheet, nothing measured; latencies from microbenchmarks of Ampere (arXiv 2208.11174)",
        ),
    )
}
"""By architecture: one card stands for each."""


def card_of(arch: str) -> Card:
    """Raises `SpecError` for an architecture of which no card is known."""
    if arch not in CARDS:
        raise SpecError(f"--arch {arch}: cards are known of {', '.join(CARDS)}")
    return CARDS[arch]
