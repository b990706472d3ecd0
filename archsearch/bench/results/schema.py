"""Schema: what a run measured, with the card and the versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal[1] = 1
"""Version of the files; a reader refuses every other."""

OURS = "archsearch"
"""The contender that is this package, in the rows of kernels."""

Phase = Literal["forward", "forward+backward", "decode"]
Status = Literal["measured", "wrong", "out of memory", "unavailable", "not proven", "failed", "out of time"]


class Strict(BaseModel):
    """Frozen, every key known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(Strict):
    """Where the figures come from; ``commit`` is the source's, with "+changes" where files differed from it."""

    card: str
    arch: str
    driver: str
    torch: str
    triton: str
    ptxas: str
    python: str
    archsearch: str
    commit: str | None
    date: str


class Spread(Strict):
    """Milliseconds of the repeats: their median, the least and the most."""

    median: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    repeats: int = Field(ge=1)


class Measured(Strict):
    """The least work of a row, what it took, and how that compares with the bound.

    ``fraction`` is the bound's time over the measured one. ``error`` is the largest RMS(difference) / RMS(reference)
    of the outputs and gradients, compared in the same run; ``agreeing`` the share of the outputs' rows that this was
    taken over, below 1 where rounding moved the choice of blocks.
    """

    ms: Spread
    flops: float
    done_flops: float | None
    moved_bytes: float
    bound_ms: float
    fraction: float
    tflops: float
    tbps: float
    error: float
    agreeing: float = 1.0
    peak_bytes: int = 0


def shape_text(batch: int, tokens: int, heads: int, kv_heads: int, head_dim: int, sizes: Mapping[str, int]) -> str:
    """A shape for people: batch x tokens, heads (of queries/of keys), head dim, and the op's own sizes."""
    both = f"H{heads}" if heads == kv_heads else f"H{heads}/{kv_heads}"
    own = "".join(f" {name}={size}" for name, size in sizes.items())
    return f"{batch}x{tokens} {both} D{head_dim}{own}"


class KernelRow(Strict):
    """One op at one shape in one phase, by one contender; ``proven`` are the proofs of the rows of kernels that it ran,
    in words."""

    op: str
    phase: Phase
    contender: str
    form: str
    batch: int
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    sizes: dict[str, int] = {}
    status: Status
    reason: str = ""
    timed: Literal["", "events", "cuda graph", "wall clock"] = ""
    proven: str = ""
    measured: Measured | None = None

    @property
    def case(self) -> tuple[str, str, int, int, int, int, int]:
        """What contenders have in common: op, phase and shape."""
        return self.op, self.phase, self.batch, self.tokens, self.heads, self.kv_heads, self.head_dim

    @property
    def shape(self) -> str:
        """The shape for people (`shape_text`)."""
        return shape_text(self.batch, self.tokens, self.heads, self.kv_heads, self.head_dim, self.sizes)


class ModelRow(Strict):
    """One figure of a whole model, and what the cost model said of it.

    ``quantity``: "training" and "prefill" are seconds a pass over the batch, "decode" seconds a step of it, "state"
    and "peak" bytes. ``predicted`` is None where the cost model says nothing.
    """

    pattern: str
    quantity: Literal["training", "prefill", "decode", "state", "peak"]
    batch: int
    context: int
    status: Status
    reason: str = ""
    timed: Literal["", "events", "cuda graph", "wall clock"] = ""
    measured: float | None = None
    spread: Spread | None = None
    predicted: float | None = None

    @property
    def ratio(self) -> float | None:
        """Measured over predicted."""
        return None if self.measured is None or not self.predicted else self.measured / self.predicted


class Rates(Strict):
    """The ceilings of the run (see `work.Ceilings`)."""

    copy_bytes_per_second: float = Field(gt=0)
    matmul_flops_per_second: float = Field(gt=0)


class Results(Strict):
    """One file: the rows of one run on one device. ``model`` are the sizes that patterns were built with; ``complete``
    is false while the run goes on, and stays so where it is ended."""

    version: Literal[1] = SCHEMA
    kind: Literal["kernels", "model"]
    environment: Environment
    ceilings: Rates
    model: dict[str, int | str] = {}
    kernels: tuple[KernelRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    complete: bool = True
