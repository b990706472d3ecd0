"""Attention that counts what is attended to, queries a piece at a time: the pure op."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.impl import choose_impl
from archsearch.ops.pieces import pieces
from archsearch.ops.softmax import scale_of

OP = "counted_attention"
WHY = "explicit products, of which the columns are summed"
PIECE_TOKENS = 256
"""Queries of a piece at most."""


def counted_attention(q: Tensor, k: Tensor, v: Tensor, held: Tensor, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """softmax(q k^T D^-0.5) v, `[B, T, Hq, D]`, and what each key was weighed, `[B, S, Hkv]` in float32 at least: the
    sum over queries and the query heads of a key head, without gradients.

    q `[B, T, Hq, D]`, the last T of the tokens of k and v `[B, S, Hkv, D]`, T at least 1. Every query sees the first
    ``held`` `[B]` of the S - T keys before, and of the last T its own and those before it. No more than a piece of the
    weights is formed at a time. Raises `OptionsError`, `KernelUnavailableError`.
    """
    choose_impl(OP, impl, why=WHY)
    count, rows, groups = q.shape[1], k.shape[1], k.shape[2]
    before = rows - count
    wide = torch.promote_types(q.dtype, torch.float32)
    grouped = (q.to(wide) * scale_of(q, None)).unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)  # [B, G, g, T, D]
    keys, values = (x.to(wide).transpose(1, 2)[:, :, None] for x in (k, v))
    index = torch.arange(rows, device=q.device)
    there = index < torch.where(index < before, held[:, None], rows)  # [B, S]
    sums, outputs = q.new_zeros(len(q), groups, rows, dtype=wide), []
    for part in pieces(count, len(q) * q.shape[2] * rows, longest=PIECE_TOKENS):
        end = before + part.stop
        own = torch.arange(before + part.start, end, device=q.device)
        visible = there[:, None, :end] & (index[:end] <= own[:, None])
        logits = grouped[:, :, :, part] @ keys[..., :end, :].mT
        weights = logits.masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
        outputs.append(weights @ values[..., :end, :])
        sums = sums + F.pad(weights.detach().sum((2, 3)), (0, rows - end))
    out = torch.cat(outputs, dim=3).permute(0, 3, 1, 2, 4).flatten(2, 3).to(q.dtype)
    return out, sums.transpose(1, 2)
