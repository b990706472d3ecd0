"""Operands: q, k and v as the attention kernels read them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.laid_out import LaidOut


@dataclass(frozen=True, kw_only=True)
class Operands:
    """q `[B, T, Hq, D]`, k and v `[B, S, Hkv, D]`, whose tokens are `q_heads`, `k_heads`, `v_heads` rows apart.

    ``width`` is D as the tiles pad it, ``scale`` that of the scores.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_heads: int
    k_heads: int
    v_heads: int
    width: int
    scale: float

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q.shape[2]

    @property
    def key_heads(self) -> int:
        """Key heads."""
        return self.k.shape[2]

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.heads // self.key_heads

    @property
    def scale_log2(self) -> float:
        """The scale of scores to base 2."""
        return self.scale / math.log(2)

    @property
    def distances(self) -> tuple[int, int, int]:
        """`q_heads`, `k_heads` and `v_heads`."""
        return self.q_heads, self.k_heads, self.v_heads

    @property
    def constants(self) -> dict[str, int | str]:
        """What every attention kernel is compiled for, beside its tiles."""
        return {"D": self.q.shape[3], "WIDTH": self.width, "PRECISION": precision_of(self.q)}


def operands(q: Tensor, k: Tensor, v: Tensor, *, width: int, scale: float) -> Operands:
    """Operands of q `[B, T, Hq, D]`, k and v `[B, S, Hkv, D]`: slices of a wider tensor are read where they are."""
    (q, q_heads), (k, k_heads), (v, v_heads) = (rows_of(x) for x in (q, k, v))
    return Operands(q=q, k=k, v=v, q_heads=q_heads, k_heads=k_heads, v_heads=v_heads, width=width, scale=scale)


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """x `[B, T, H, D]` and the distance of two tokens in rows of D; a copy where no such number tells it."""
    distance, rest = divmod(x.stride(1), x.shape[3])
    apart = x.stride(3) != 1 or x.stride(2) != x.shape[3] or rest
    if apart or (x.shape[0] > 1 and x.stride(0) != x.shape[1] * x.stride(1)):
        return x.contiguous(), x.shape[2]
    return x, distance


def precision_of(x: Tensor) -> str:
    """How products are to be made: of float32 operands in full; of others there is no choice."""
    return "ieee" if x.dtype == torch.float32 else "tf32"


def alike(laid: LaidOut) -> LaidOut:
    """q, k, v in one dtype, that of autocast where it is on, and of one head dim, the lesser filled with zeros."""
    kind = laid.q.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else laid.q.dtype
    dim = max(laid.q.shape[-1], laid.v.shape[-1])
    q, k, v = (_widened(x.to(dtype), dim) for x in (laid.q, laid.k, laid.v))
    return replace(laid, q=q, k=k, v=v)


def _widened(x: Tensor, dim: int) -> Tensor:
    return x if x.shape[-1] == dim else F.pad(x, (0, dim - x.shape[-1]))


def narrowed(out: Tensor, laid: LaidOut) -> Tensor:
    """Outputs of what `alike` made, `[B, T, Hq, Dv]` with the head dim of the values that there were before."""
    value_dim = laid.v.shape[-1]
    return out if out.shape[-1] == value_dim else out[..., :value_dim]


def rows_of_cache(x: Tensor) -> tuple[Tensor, int, int]:
    """A cache `[B, S, H, D]` and the distances of two sequences and of two tokens in rows of D; a copy if need be."""
    dim = x.shape[3]
    if x.stride(3) != 1 or x.stride(2) != dim or x.stride(1) % dim or x.stride(0) % dim:
        x = x.contiguous()
    return x, x.stride(0) // dim, x.stride(1) // dim


def heads_end_to_end(x: Tensor) -> Tensor:
    """`x` `[B, T, H, D]`, its heads end to end and its tokens and sequences whole heads apart; a copy where they are
    not."""
    dim = x.shape[-1]
    fits = x.stride(-1) == 1 and x.stride(-2) == dim and not (x.stride(0) % dim or x.stride(1) % dim)
    return x if fits else x.contiguous()
