"""The compile report: what each kernel takes of an architecture, what is wrong with it, and what was accepted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from archsearch.errors import SpecError

SHARED_LIMIT: Mapping[str, int] = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}
"""Bytes of shared memory that one program may take (CUDA C++ Programming Guide, technical specifications)."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One kernel as compiled for one architecture. ``products`` are the matrix products in the source, ``scalar``
    those that did not become matrix instructions; ``turned`` accumulators are rounded and transposed in registers,
    which some versions of ptxas get silently wrong on Hopper; ``digest`` covers the source and the configuration."""

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
    turned: int
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
        if self.turned and self.arch == "sm_90":
            found.append(f"transposes {self.turned} rounded accumulators in registers: make the product transposed")
        return found


_COLUMNS = [column.name for column in fields(Compiled)]


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
                triton=data["triton"],
                ptxas=data["ptxas"],
                reasons=data["reasons"],
                kernels=[Compiled(**dict(zip(data["columns"], row, strict=True))) for row in data["kernels"]],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpecError(f"{path}: not a compile report ({error}): write one with --write") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**self._head(), "kernels": [asdict(compiled) for compiled in self._sorted()]}

    def write(self, path: Path) -> None:
        """One line a kernel, so that a difference shows as a line."""
        lines = ",\n".join(f"    {json.dumps(astuple(compiled))}" for compiled in self._sorted())
        head = json.dumps(self._head(), indent=2).removesuffix("\n}")
        columns = json.dumps(_COLUMNS)
        path.write_text(f'{head},\n  "columns": {columns},\n  "kernels": [\n{lines}\n  ]\n}}\n')

    def _head(self) -> dict[str, Any]:
        return {"triton": self.triton, "ptxas": self.ptxas, "reasons": dict(sorted(self.reasons.items()))}

    def _sorted(self) -> list[Compiled]:
        return sorted(self.kernels, key=lambda compiled: compiled.label)

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


def drift(accepted: Report, report: Report) -> list[str]:
    """How the same source, compiled by the same compilers, came out otherwise than in the accepted report."""
    if (accepted.triton, accepted.ptxas) != (report.triton, report.ptxas):
        return []
    held = {compiled.label: compiled for compiled in accepted.kernels}
    return [
        f"{now.label}: {name} = {value}, accepted was {before}"
        for now in report.kernels
        if now.label in held and now.digest == held[now.label].digest
        for (name, value), before in zip(asdict(now).items(), asdict(held[now.label]).values(), strict=True)
        if value != before
    ]
