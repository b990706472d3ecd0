"""Attention weights as such, for models that learn from them."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_weights(q: Tensor, k: Tensor, visible: Tensor, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) over the visible keys, the mean over heads, `[B, T, S]` fp32.

    q `[B, T, Hq, D]`, k `[B, S, Hkv, D]`, Hq a multiple of Hkv; ``visible`` `[T, S]` or `[B, T, S]`, one key at least.
    ``scale`` is D^-0.5 unless given.
    """
    grouped = torch.unflatten(q.float(), 2, (k.shape[2], -1))
    scores = torch.einsum("bthgd,bshd->bhgts", grouped, k.float()) * (q.shape[-1] ** -0.5 if scale is None else scale)
    mask = visible if visible.dim() == 2 else visible[:, None, None]
    return scores.masked_fill(~mask, -torch.inf).softmax(-1).mean((1, 2))
