"""The compile report: what each kernel takes of an architecture, what is wrong with it, and what was accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from archsearch.evidence.records import Record, Records

SHARED_LIMIT: Mapping[str, int] = {"sm_80": 163 * 1024, "sm_90": 227 * 1024}
"""Bytes of shared memory that one program may take (CUDA C++ Programming Guide, technical specifications)."""


class Compiled(Record):
    """One kernel as compiled for one architecture. ``products`` are the matrix products in the source, ``scalar``
    those that did not become matrix instructions though they should; ``turned`` accumulators are rounded and transposed
    in registers, which some versions of ptxas get silently wrong on Hopper; ``digest`` covers the source and the
    configuration. Of a kernel that is launched on float32 alone ``exact`` products are made in full precision, and so
    by no matrix instruction, and ``rounded`` are not."""

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
    exact: int = 0
    rounded: int = 0

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of a kernel on other operands nothing is written of those in float32."""
        return {name: value for name, value in write(self).items() if value or name not in ("exact", "rounded")}

    @property
    def label(self) -> str:
        """Kernel and architecture."""
        return f"{self.kernel} {self.arch}"

    @property
    def identity(self) -> tuple[str]:
        """Kernel and architecture."""
        return (self.label,)

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
        if self.rounded:
            found.append(f"rounds the float32 operands of {self.rounded} of its {self.products} products")
        if self.turned and self.arch == "sm_90":
            found.append(f"transposes {self.turned} rounded accumulators in registers: make the product transposed")
        return found


class Report(Records[Compiled]):
    """What compilation ahead of time gave, with the versions of the compilers; ``reasons`` says for a kernel's label
    why its spill is accepted."""

    FILE: ClassVar[str] = "compiled.json"
    HOLDS: ClassVar[str] = "compile report"
    REMEDY: ClassVar[str] = "write one with archsearch kernels compile --write"

    triton: str
    ptxas: str
    reasons: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the command line: ``triton``, ``ptxas``, ``reasons`` and ``kernels``."""
        data = self.model_dump(mode="json", exclude={"version", "records"})
        return {**data, "kernels": [compiled.model_dump(mode="json") for compiled in self.ordered()]}

    def faults(self, accepted: Mapping[str, str] | None = None) -> list[str]:
        """Every fault, but for spills that `accepted` (else this report itself) gives a reason for."""
        reasons = self.reasons if accepted is None else accepted
        return [
            f"{compiled.label}: {fault}"
            for compiled in self.records
            for fault in compiled.faults()
            if not (fault.startswith("spills") and reasons.get(compiled.label))
        ]


def differences(accepted: Report, digests: Mapping[str, str], archs: Iterable[str]) -> list[str]:
    """How today's kernels, by label their digests, differ from those of the accepted report on these architectures."""
    held = {compiled.label: compiled.digest for compiled in accepted.records if compiled.arch in set(archs)}
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
    held = {compiled.label: compiled for compiled in accepted.records}
    return [
        f"{now.label}: {name} = {value}, accepted was {before}"
        for now in report.records
        if now.label in held and now.digest == held[now.label].digest
        for (name, value), before in zip(dict(now).items(), dict(held[now.label]).values(), strict=True)
        if value != before
    ]
