"""Build: one kernel in one configuration, as it is launched, for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.kernels.config import Config

COMMON = (64, 128)
"""Head dims whose kernels are compiled ahead in float32 too."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """``fn`` is the ``@triton.jit`` function; ``signature`` the types of its arguments that are no constants, as in
    {"q": "*bf16", "T": "i32"}, pointers being 16-byte aligned; ``constexprs`` the values of all others."""

    op: str
    name: str
    fn: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    config: Config
    head_dim: int
    chunk: int = 0
    variant: str = ""

    @property
    def exact(self) -> bool:
        """Whether it is launched on float32 alone and makes products in full precision (PRECISION, as
        `archsearch.ops.triton.operands.precision_of` has it): no matrix instruction does."""
        narrow = {"*bf16", "*fp16"} & set(self.signature.values())
        return self.constexprs.get("PRECISION") == "ieee" and not narrow

    @property
    def label(self) -> str:
        """One name for people and for the report."""
        variant = f" {self.variant}" if self.variant else ""
        chunk = f" chunk {self.chunk}" if self.chunk else ""
        return f"{self.op} {self.name}{variant} D={self.head_dim}{chunk}"
