"""Work: the least that an op must compute and move, and the time below which no implementation can come."""

from __future__ import annotations

from dataclasses import dataclass

from archsearch.attention_cost import kv_traffic, softmax_flops, visible_pairs
from archsearch.mixer import Dtype, ModelShape


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

    def model(self, element_bytes: int = 2) -> ModelShape:
        """For the cost functions of a mixer: a model of width 1, whose projections cost next to nothing."""
        dtype: Dtype = "bfloat16" if element_bytes == 2 else "float32"
        return ModelShape(d_model=1, n_heads=self.heads, n_kv_heads=self.kv_heads, head_dim=self.head_dim, dtype=dtype)


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


def causal_work(shape: Shape, element_bytes: int, window: int | None = None) -> Work:
    """Softmax attention over the causal pairs of the square, or over a band of `window` keys a query: 4 D of matrix
    product a pair and query head."""
    read, written = softmax_io(shape, element_bytes)
    flops = shape.batch * softmax_flops(visible_pairs(shape.tokens, window), shape.model()).matmul
    return Work(flops=flops, read_bytes=read, written_bytes=written)


def cache_work(shape: Shape, element_bytes: int) -> Work:
    """One token of each sequence over as many rows of its cache as the shape has tokens."""
    rows, token = kv_traffic(shape.tokens, shape.model(element_bytes)).read_bytes, token_io(shape, element_bytes)
    flops = shape.batch * softmax_flops(shape.tokens, shape.model()).matmul
    return Work(flops=flops, read_bytes=shape.batch * rows + token, written_bytes=token)
