"""Work: the least that an op must compute and move, and the time below which no implementation can come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of one call: ``heads`` are query heads (value heads of a linear mixer), ``kv_heads`` the fewer ones.

    For one decoded token, ``tokens`` is the context that the state holds, itself included.
    """

    batch: int
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def total(self) -> int:
        """Tokens of the whole batch."""
        return self.batch * self.tokens


@dataclass(frozen=True, kw_only=True)
class Work:
    """``flops``: operations of matrix products, 2 a multiply-add, without which the op cannot be computed.
    ``read_bytes`` and ``written_bytes``: each input once, each output once. ``done_flops``: those that the chosen
    algorithm does, where it does more than the least."""

    flops: float
    read_bytes: float
    written_bytes: float
    done_flops: float | None = None

    @property
    def moved_bytes(self) -> float:
        """Bytes read and written."""
        return self.read_bytes + self.written_bytes

    def trained(self) -> Work:
        """Forward and backward: three times the operations; the backward pass reads the inputs again and the gradient
        of the outputs, and writes a gradient for each input."""
        return Work(
            flops=3 * self.flops,
            read_bytes=2 * self.read_bytes + self.written_bytes,
            written_bytes=self.written_bytes + self.read_bytes,
            done_flops=None if self.done_flops is None else 3 * self.done_flops,
        )


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What the device reached in the same run: a large copy, counting bytes read and written, and a large matrix
    product in bfloat16 on random numbers."""

    copy_bytes_per_second: float
    matmul_flops_per_second: float

    def bound_seconds(self, work: Work) -> float:
        """The larger of the two times that the work takes at the ceilings."""
        return max(work.flops / self.matmul_flops_per_second, work.moved_bytes / self.copy_bytes_per_second)


def softmax_io(shape: Shape, element_bytes: int = 2) -> tuple[float, float]:
    """Bytes of q, k and v, and bytes of the output, of softmax attention over `[B, T, H, D]`."""
    row = shape.total * shape.head_dim * element_bytes
    return float(row * (shape.heads + 2 * shape.kv_heads)), float(row * shape.heads)


def token_io(shape: Shape, element_bytes: int = 2) -> float:
    """Bytes of one new token's query, or of its output, `[B, H, D]`."""
    return float(shape.batch * shape.heads * shape.head_dim * element_bytes)
