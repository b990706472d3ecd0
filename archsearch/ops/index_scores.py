"""Scores of an index, and the best of them: what mixers share that attend to what small heads choose."""

from __future__ import annotations

import torch
from torch import Tensor


def relu_scores(queries: Tensor, keys: Tensor, weights: Tensor | None = None) -> Tensor:
    """sum_j w_j relu(q_j . k), `[B, 1, T, n]` in float32 at least, of queries `[B, T, J, I]` and keys `[B, n, I]`.

    weights `[B, T, J]`; without them the plain sum. DeepSeek-V3.2, arXiv 2512.02556, equation 1.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    hits = (queries.to(dtype).transpose(1, 2) @ keys.to(dtype)[:, None].mT).relu()
    if weights is None:
        return hits.sum(1, keepdim=True)
    return torch.einsum("btj,bjtn->btn", weights.to(dtype), hits)[:, None]


def best_mask(scores: Tensor, count: int) -> Tensor:
    """The `count` of highest score as a mask like `scores` `[..., n]`; none whose score is -inf."""
    finite = scores > -torch.inf
    if count >= scores.shape[-1]:
        return finite
    least = scores.topk(count, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above, ties = scores > least, (scores == least) & finite
    room = count - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1, dtype=torch.int32) <= room))
