"""Softmax attention under a mask, and what its ops share: checks of shapes, packed sequences.

Tensors are q `[B, T, Hq, D]`, k and v `[B, S, Hkv, D]`, Hq a multiple of Hkv; the T queries stand at the last T of
the S keys. ``visible`` masks are boolean, `[T, S]` or `[B, T, S]`; every query must see at least one key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.errors import SpecError


class ShapeError(SpecError, ValueError):
    """Tensors whose shapes do not fit together."""


def check_qkv(
    op: str, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None = None, lengths: Tensor | None = None
) -> None:
    """Raises `ShapeError` unless q, k, v (and the batch of one that `cu_seqlens` asks for) fit together."""
    shown = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise ShapeError(f"{op}: {shown}: each must be [batch, tokens, heads, head_dim]")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ShapeError(f"{op}: {shown}: batch, key tokens, key heads and head_dim must agree")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise ShapeError(f"{op}: {shown}: the query heads must be a multiple of the key heads")
    if q.shape[1] > k.shape[1]:
        raise ShapeError(f"{op}: {shown}: more queries than keys; the queries are the last of the keys' tokens")
    if lengths is not None and lengths.shape != q.shape[:1]:
        raise ShapeError(f"{op}: {shown}, lengths {list(lengths.shape)}: lengths must be [batch]")
    if cu_seqlens is None:
        return
    if lengths is not None:
        raise ShapeError(f"{op}: cu_seqlens and lengths: packed sequences have no rows beside their own; give one")
    if q.shape[0] != 1 or q.shape[1] != k.shape[1]:
        raise ShapeError(f"{op}: {shown}: packed sequences need a batch of 1 and as many queries as keys")
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1:
        raise ShapeError(f"{op}: cu_seqlens {list(cu_seqlens.shape)}: must be [sequences + 1]")


def packed_lengths(cu_seqlens: Tensor, tokens: int) -> list[int]:
    """Lengths of the packed sequences. Raises `ShapeError` unless the bounds rise from 0 to `tokens`."""
    bounds = [int(bound) for bound in cu_seqlens.tolist()]
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    if bounds[0] != 0 or bounds[-1] != tokens or min(lengths, default=0) < 0:
        raise ShapeError(f"cu_seqlens = {bounds}: must rise from 0 to the number of tokens, {tokens}")
    return lengths


def each_apart(
    name: str,
    op: Callable[..., Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *more: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
) -> Tensor:
    """`op` over sequences of one length at once, `[B, T, Hq, Dv]`, else over each apart: packed ones `[1, T, ...]`, and
    the first `lengths` `[B]` rows of k and v where they differ; `more` `[B, T, ...]` are split like q. No tokens give
    `no_outputs`. Raises `ShapeError` for bounds or lengths that do not fit."""
    packed = None if cu_seqlens is None else [n for n in packed_lengths(cu_seqlens, q.shape[1]) if n]
    filled = None if lengths is None else _filled_lengths(name, q, k, lengths)
    if q.numel() == 0:
        return no_outputs(q, k, v)
    if packed is not None:
        pieces = zip(*(torch.split(x, packed, dim=1) for x in (q, k, v, *more)), strict=True)
        return torch.cat([op(*piece) for piece in pieces], dim=1)
    if filled is None:
        return op(q, k, v, *more)
    if min(filled) == max(filled):
        return op(q, k[:, : filled[0]], v[:, : filled[0]], *more)
    rows = [(slice(index, index + 1), length) for index, length in enumerate(filled)]
    return torch.cat([op(q[i], k[i, :length], v[i, :length], *(x[i] for x in more)) for i, length in rows])


def _filled_lengths(name: str, q: Tensor, k: Tensor, lengths: Tensor) -> list[int]:
    """On the host. Raises `ShapeError` where one leaves no room for the queries, or passes the rows."""
    filled = [int(length) for length in lengths.tolist()]
    if any(not q.shape[1] <= length <= k.shape[1] for length in filled):
        raise ShapeError(
            f"{name}: lengths = {filled}: must lie between the {q.shape[1]} queries and the {k.shape[1]} rows"
        )
    return filled


def no_outputs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Outputs `[B, T, Hq, Dv]` where B or T is 0, through which gradients, zeros, reach q, k and v."""
    return (q[..., :1] + 0 * (k.sum() + v.sum())).expand(*q.shape[:3], v.shape[3])


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """`[T, S]`: the queries are the last of the keys' tokens, and each sees itself and what came before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) v over the visible keys by explicit products, `[B, T, Hq, Dv]`; float32 at least.

    ``scale`` is D^-0.5 unless given (arXiv 1706.03762, equation 1).
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    groups = k.shape[2]
    grouped = torch.unflatten(q.to(dtype), 2, (groups, -1))
    scores = torch.einsum("bthgd,bshd->bhgts", grouped, k.to(dtype)) * _scale(q, scale)
    mask = visible if visible.dim() == 2 else visible[:, None, None]
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return torch.einsum("bhgts,bshd->bthgd", weights, v.to(dtype)).flatten(2, 3).to(q.dtype)


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The same by `scaled_dot_product_attention`; without ``visible`` the causal mask of T = S tokens."""
    mask = visible[:, None] if visible is not None and visible.dim() == 3 else visible
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=visible is None,
        scale=_scale(q, scale),
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


def _scale(q: Tensor, scale: float | None) -> float:
    return float(q.shape[-1] ** -0.5) if scale is None else scale
