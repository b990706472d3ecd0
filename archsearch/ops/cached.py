"""Attention of one new token a sequence over the rows of its cache: checks, forms, and the choice between them."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.kernels import Table
from archsearch.ops.impl import choose_attention, choose_impl
from archsearch.ops.softmax import ShapeError, all_rows_attention, explicit_attention, masked_attention, scale_of

SINK_IN_PYTORCH = "a sink logit, which no kernel here takes, in PyTorch"


def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    *,
    table: Table | None = None,
    scale: float | None = None,
    impl: str = "auto",
    sink: Tensor | None = None,
) -> Tensor:
    """softmax(scale q k^T) v over the first ``lengths`` rows of each sequence's cache, `[B, Hq, Dv]`.

    q `[B, Hq, D]`; k `[B, S, Hkv, D]`, v `[B, S, Hkv, Dv]`, perhaps of another dtype than q; lengths `[B]`, at least
    1, cut at S; Hq a multiple of Hkv. ``scale`` is D^-0.5 unless given; ``table`` names the op and its kernels, left
    out where there are none; ``sink`` `[Hq]` joins the sum of the softmax, as in `explicit_attention`, in PyTorch. The
    Triton form waits for nothing on the device; the others read ``lengths``. Raises
    `ShapeError`, `KernelUnavailableError`.
    """
    op, why = table.op if table is not None else "cached_attention", "scaled_dot_product_attention over the filled rows"
    _check(f"{op}_step", q, k, v, lengths)
    if table is None or sink is not None:
        chosen = choose_impl(op, impl, why=why if sink is None else SINK_IN_PYTORCH)
    else:
        chosen = choose_attention(table, q, v, impl, why=why)
    scale = scale_of(q, scale)
    if chosen == "triton":
        from archsearch.ops.triton.step import attention_step

        return attention_step(q, k, v, lengths, op=op, scale=scale)
    known = [min(length, k.shape[1]) for length in lengths.tolist()]
    filled = max(known, default=0)
    keys, values = (x.to(q.dtype) if filled == x.shape[1] else x[:, :filled].to(q.dtype) for x in (k, v))
    if chosen != "reference" and sink is None and known and min(known) == filled:
        return all_rows_attention(q, keys, values, scale)
    visible = torch.arange(filled, device=q.device) < lengths[:, None, None]
    form = explicit_attention if chosen == "reference" else masked_attention
    return form(q[:, None], keys, values, visible, scale, sink)[:, 0]


def _check(op: str, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> None:
    fits = q.dim() == 3 and k.dim() == v.dim() == 4 and k.shape[:3] == v.shape[:3] and lengths.shape == q.shape[:1]
    if fits and q.shape[0] == k.shape[0] and q.shape[2] == k.shape[3] and k.shape[2] and q.shape[1] % k.shape[2] == 0:
        return
    shown = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}, lengths {list(lengths.shape)}"
    if q.dim() != 3 or k.dim() != 4 or v.dim() != 4:
        raise ShapeError(f"{op}: {shown}: q must be [batch, heads, head_dim], k and v [batch, rows, heads, head_dim]")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[2] != k.shape[3]:
        raise ShapeError(f"{op}: {shown}: batch, rows, key heads and head_dim must agree")
    if lengths.shape != q.shape[:1]:
        raise ShapeError(f"{op}: {shown}: lengths must be [batch]")
    raise ShapeError(f"{op}: {shown}: the query heads must be a multiple of the key heads")
