"""The compile report: what each kernel takes of an architecture, what is wrong with it, and what was accepted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archsearch.errors import SpecError

SHARED_LIMIT: Mapping[str, int] = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}
"""Bytes of shared memory that one program may take (CUDA C++ Programming Guide, technical specifications)."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One kernel as compiled for one architecture. ``products`` are the matrix products in the source, ``scalar``
    those that did not become matrix instructions; ``digest`` covers the source, the configuration and the compilers."""

    kernel: str
    arch: str
    tiles: Mapping[str, int]
    num_warps: int
    num_stages: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    products: int
    scalar: int
    digest: str

    @property
    def label(self) -> str:
        """Kernel and architecture."""
        return f"{self.kernel} {self.arch}"

    def faults(self) -> list[str]:
        """What is wrong with it, none when all is well."""
        found = []
        limit = SHARED_LIMIT[self.arch]
        if self.spill_bytes:
            found.append(f"spills {self.spill_bytes} bytes of registers")
        if self.shared_bytes > limit:
            found.append(f"takes {self.shared_bytes} bytes of shared memory, of {limit} that there are")
        if self.scalar:
            found.append(f"{self.scalar} of its {self.products} products did not become matrix instructions")
        return found


@dataclass(frozen=True, kw_only=True)
class Report:
    """What compilation ahead of time gave, with the versions of the compilers; ``reasons`` says for a kernel's label
    why its spill is accepted."""

    triton: str
    ptxas: str
    kernels: Sequence[Compiled]
    reasons: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> Report:
        """Raises `SpecError` for a file that is no report."""
        try:
            data = json.loads(path.read_text())
            return cls(
                triton=data["triton"], ptxas=data["ptxas"], reasons=data["reasons"],
                kernels=[Compiled(**entry) for entry in data["kernels"]],
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpecError(f"{path}: not a compile report ({error}): write one with --write") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        kernels = sorted(self.kernels, key=lambda compiled: compiled.label)
        return {
            "triton": self.triton, "ptxas": self.ptxas, "reasons": dict(sorted(self.reasons.items())),
            "kernels": [asdict(compiled) for compiled in kernels],
        }  # fmt: skip

    def write(self, path: Path) -> None:
        """One line a kernel, so that a difference shows as a line."""
        data = self.to_dict()
        lines = ",\n".join(f"    {json.dumps(entry)}" for entry in data.pop("kernels"))
        head = json.dumps(data, indent=2).removesuffix("\n}")
        path.write_text(f'{head},\n  "kernels": [\n{lines}\n  ]\n}}\n')

    def faults(self, accepted: Mapping[str, str] | None = None) -> list[str]:
        """Every fault, but for spills that `accepted` (else this report itself) gives a reason for."""
        reasons = self.reasons if accepted is None else accepted
        return [
            f"{compiled.label}: {fault}"
            for compiled in self.kernels
            for fault in compiled.faults()
            if not (fault.startswith("spills") and reasons.get(compiled.label))
        ]


def differences(accepted: Report, digests: Mapping[str, str], archs: Iterable[str]) -> list[str]:
    """How today's kernels, by label their digests, differ from those of the accepted report on these architectures."""
    held = {compiled.label: compiled.digest for compiled in accepted.kernels if compiled.arch in set(archs)}
    return [
        *(f"{label}: is not in the accepted report" for label in sorted(digests.keys() - held.keys())),
        *(f"{label}: is in the accepted report, but no longer built" for label in sorted(held.keys() - digests.keys())),
        *(
            f"{label}: has changed since the report was accepted"
            for label in sorted(held.keys() & digests.keys())
            if held[label] != digests[label]
        ),
    ]
