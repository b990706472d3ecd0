"""Attention over latents as they lie in a cache, by queries that absorbed what multiplies latents out."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.ops.softmax import explicit_attention, masked_attention


def attend_rows(
    q: Tensor, rows: Tensor, positions: Tensor, *, rank: int, scale: float, explicit: bool = False
) -> Tensor:
    """softmax(scale q row) latent over the rows up to each query's, `[B, T, H, C]`: of each row `[C + R]` the latent,
    its first C = ``rank`` numbers, is what is mixed.

    q `[B, T, H, C + R]` at `positions` `[B, T]` int64 of their sequences, rows `[B, S, C + R]`.
    """
    visible = torch.arange(rows.shape[1], device=q.device) <= positions[..., None]
    form = explicit_attention if explicit else masked_attention
    return form(q, rows[:, :, None], rows[:, :, None, :rank], visible, scale)
