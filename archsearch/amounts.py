"""Amounts: the operations that a layer performs, and the bytes of state that it moves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations by kind: matrix products (2 a multiply-add), elementwise, exponentials.

    A product of two matrices, of a matrix and a vector, and of two vectors is one of matrices wherever its terms are
    added up: that of a key and a value which a decoded token adds to its state too, 2 a cell. Everything else is
    elementwise, one for each addition, product, quotient or comparison; a logarithm, a sine and a hyperbolic tangent
    count as exponentials. Activations cost what `SIGMOID`, `SILU`, `SOFTPLUS` and `GELU` say, their products with
    something else apart.
    """

    matmul: float = 0.0
    elementwise: float = 0.0
    exp: float = 0.0

    @property
    def total(self) -> float:
        """All kinds together."""
        return self.matmul + self.elementwise + self.exp

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            matmul=self.matmul + other.matmul,
            elementwise=self.elementwise + other.elementwise,
            exp=self.exp + other.exp,
        )

    def __mul__(self, factor: float) -> Flops:
        return Flops(matmul=self.matmul * factor, elementwise=self.elementwise * factor, exp=self.exp * factor)


SIGMOID = Flops(elementwise=2, exp=1)
"""1 / (1 + exp(-x)) of one number: a sum and a quotient."""
SILU = Flops(elementwise=3, exp=1)
"""x times its sigmoid."""
SOFTPLUS = Flops(elementwise=1, exp=2)
"""log(1 + exp(x))."""
GELU = Flops(elementwise=8, exp=1)
"""x / 2 (1 + tanh(c (x + c' x^3)))."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of state that one decoded token of one sequence reads and writes; weights are counted apart.

    ``read_bytes`` and ``written_bytes`` are the mean over tokens around a context. Where tokens differ, as for a mixer
    that closes a block every so often, ``peak_read_bytes`` and ``peak_written_bytes`` are those of the costliest token
    up to there; left out, every token costs the mean.
    """

    read_bytes: float = 0.0
    written_bytes: float = 0.0
    peak_read_bytes: float | None = None
    peak_written_bytes: float | None = None

    @property
    def most_read(self) -> float:
        """The peak, the mean where none is stated."""
        return self.read_bytes if self.peak_read_bytes is None else self.peak_read_bytes

    @property
    def most_written(self) -> float:
        """The peak, the mean where none is stated."""
        return self.written_bytes if self.peak_written_bytes is None else self.peak_written_bytes

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            read_bytes=self.read_bytes + other.read_bytes,
            written_bytes=self.written_bytes + other.written_bytes,
            peak_read_bytes=_peak(self.most_read + other.most_read, self, other),
            peak_written_bytes=_peak(self.most_written + other.most_written, self, other),
        )


def _peak(most: float, *parts: Traffic) -> float | None:
    stated = any(part.peak_read_bytes is not None or part.peak_written_bytes is not None for part in parts)
    return most if stated else None
