"""Attention of one new token a sequence over the rows of its cache: checks, forms, and the choice between them."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.kernels import Table
from archsearch.ops.impl import choose_attention
from archsearch.ops.softmax import ShapeError, explicit_attention, masked_attention, scale_of


def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, table: Table, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """softmax(scale q k^T) v over the first ``lengths`` rows of each sequence's cache, `[B, Hq, Dv]`.

    q `[B, Hq, D]`; k `[B, S, Hkv, D]`, v `[B, S, Hkv, Dv]`, perhaps of another dtype than q; lengths `[B]`, at least
    1, cut at S; Hq a multiple of Hkv. ``scale`` is D^-0.5 unless given; ``table`` names the op and its kernels. The
    Triton form waits for nothing on the device; the others read ``lengths``. Raises `ShapeError`,
    `KernelUnavailableError`.
    """
    _check(f"{table.op}_step", q, k, v, lengths)
    chosen = choose_attention(table, q, v, impl, why="scaled_dot_product_attention over the filled rows")
    scale = scale_of(q, scale)
    if chosen == "triton":
        from archsearch.ops.triton.step import attention_step

        return attention_step(q, k, v, lengths, op=table.op, scale=scale)
    filled = min(max(lengths.tolist(), default=0), k.shape[1])
    keys, values = (x[:, :filled].to(q.dtype) for x in (k, v))
    visible = torch.arange(filled, device=q.device) < lengths[:, None, None]
    form = explicit_attention if chosen == "reference" else masked_attention
    return form(q[:, None], keys, values, visible, scale)[:, 0]


def _check(op: str, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> None:
    shown = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}, lengths {list(lengths.shape)}"
    if q.dim() != 3 or k.dim() != 4 or v.dim() != 4:
        raise ShapeError(f"{op}: {shown}: q must be [batch, heads, head_dim], k and v [batch, rows, heads, head_dim]")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[2] != k.shape[3]:
        raise ShapeError(f"{op}: {shown}: batch, rows, key heads and head_dim must agree")
    if lengths.shape != q.shape[:1]:
        raise ShapeError(f"{op}: {shown}: lengths must be [batch]")
    if k.shape[2] == 0 or q.shape[1] % k.shape[2]:
        raise ShapeError(f"{op}: {shown}: the query heads must be a multiple of the key heads")
