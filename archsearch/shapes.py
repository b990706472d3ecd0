"""Shapes: the sizes that a mixer is built for, and the tensors that decoding keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from archsearch.errors import OptionsError, listing

Dtype = Literal["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "int64", "int32", "int8"]
DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "int64": 8,
    "int32": 4,
    "int8": 1,
}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes that a mixer is built for. ``dtype`` is the dtype of activations and caches that costs are counted in."""

    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    dtype: Dtype = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("d_model", "n_heads", "n_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.n_heads % self.n_kv_heads:
            raise OptionsError(
                f"n_kv_heads = {self.n_kv_heads} does not divide n_heads = {self.n_heads}: choose a divisor"
            )
        if self.dtype not in DTYPE_BYTES:
            raise OptionsError(f'dtype = "{self.dtype}" is unknown: one of {listing(DTYPE_BYTES)}')

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class StateTensor:
    """One tensor that decoding keeps for one sequence, ``rows(T)`` rows of ``row_shape``.

    ``rows(T) = base + min(cap, ceil(T / stride))``: a fixed state is ``base=1``; one row a token is
    ``stride=1``; a window is ``stride=1, cap=window``; one row a block is ``stride=block``. With ``log2`` the rows that
    grow are one more with each doubling, ``floor(log2 T) + 1``, as a hierarchy of states has them.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: Dtype
    role: Literal["kv", "summary", "recurrent", "conv", "index"]
    base: int = 0
    stride: int | None = None
    cap: int | None = None
    log2: bool = False

    @property
    def grows(self) -> bool:
        """Whether the tensor grows with tokens (a window included)."""
        return self.stride is not None or self.log2

    def rows(self, context: int) -> int:
        """Rows held after `context` tokens."""
        if self.log2:
            grown = context.bit_length()
        elif self.stride is not None:
            grown = -(-context // self.stride)
        else:
            return self.base
        return self.base + (grown if self.cap is None else min(self.cap, grown))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        size = DTYPE_BYTES[self.dtype]
        for extent in self.row_shape:
            size *= extent
        return size

    def nbytes(self, context: int) -> int:
        """Bytes held for one sequence after `context` tokens."""
        return self.rows(context) * self.row_bytes
