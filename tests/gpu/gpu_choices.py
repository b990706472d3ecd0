"""Which choices of blocks are clear: a mean rounded to bfloat16 must not move them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

ROUNDING = 2.0**-7
"""Of |q| |mean| element by element: four times the error that rounding the mean to bfloat16 makes."""

_PART = 2048


def spans(bounds: Tensor | None, tokens: int) -> list[tuple[int, int]]:
    """Start and end of each sequence that has tokens."""
    ends = [0, tokens] if bounds is None else bounds.tolist()
    return [(start, end) for start, end in itertools.pairwise(ends) if end > start]


def clear_moba(q: Tensor, k: Tensor, bounds: Tensor | None, *, block_size: int, top_k: int) -> Tensor:
    """`[B, T, Hq]`: the score of the last block that is chosen stands clear of the next one's."""
    return _by_sequence(q, k, bounds, block_size, lambda x, y: _clear_moba(x, y, block_size, top_k - 1))


def clear_nsa(q: Tensor, k: Tensor, bounds: Tensor | None, *, block_size: int, top_k: int) -> Tensor:
    """`[B, T, Hq]`: the same of the probabilities, which the query heads of a key head share."""
    return _by_sequence(q, k, bounds, block_size, lambda x, y: _clear_nsa(x, y, block_size, top_k - 2))


def after_cached(clear: Callable[..., Tensor], q: Tensor, k: Tensor, lengths: Tensor, **sizes: int) -> Tensor:
    """One of the two of queries `[B, T, Hq, D]` that are the last of each sequence's first `lengths` `[B]` keys."""
    made = []
    for row, length in enumerate(lengths.tolist()):
        queries = q[row : row + 1]
        whole = torch.cat((queries[:, :1].expand(-1, length - q.shape[1], -1, -1), queries), 1)
        made.append(clear(whole, k[row : row + 1, :length], None, **sizes)[:, length - q.shape[1] :])
    return torch.cat(made)


def _by_sequence(q: Tensor, k: Tensor, bounds: Tensor | None, block_size: int, clear: object) -> Tensor:
    made = torch.ones(q.shape[:3], dtype=torch.bool, device=q.device)
    for start, end in spans(bounds, q.shape[1]):
        if end - start < block_size:
            continue  # no block is complete, so there is no choice
        made[:, start:end] = clear(q[:, start:end].double(), k[:, start:end].double())  # type: ignore[operator]
    return made


def _means(q: Tensor, k: Tensor, block_size: int) -> Tensor:
    count = k.shape[1] // block_size
    means = k[:, : count * block_size].unflatten(1, (count, block_size)).mean(2) if count else k[:, :0]
    return means.repeat_interleave(q.shape[2] // k.shape[2], 2)


def _scores(q: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Products `[B, T, H, n]` with the means, and what rounding may move of each."""
    scores = torch.einsum("bthd,bnhd->bthn", q, means)
    return scores, ROUNDING * torch.einsum("bthd,bnhd->bthn", q.square(), means.square()).sqrt()


def _clear_moba(q: Tensor, k: Tensor, block_size: int, best: int) -> Tensor:
    means, clear = _means(q, k, block_size), []
    blocks = torch.arange(means.shape[1], device=q.device)
    for start in range(0, q.shape[1], _PART):
        part = q[:, start : start + _PART]
        own = (torch.arange(start, start + part.shape[1], device=q.device) // block_size)[:, None, None]
        scores, error = _scores(part, means)
        clear.append(_gap(scores.masked_fill(blocks >= own, -torch.inf), error.amax(-1), best, own[..., 0] > best))
    return torch.cat(clear, 1)


def _clear_nsa(q: Tensor, k: Tensor, block_size: int, best: int) -> Tensor:
    means, clear, scale, groups = _means(q, k, block_size), [], q.shape[-1] ** -0.5, k.shape[2]
    blocks = torch.arange(means.shape[1], device=q.device)
    for start in range(0, q.shape[1], _PART):
        part = q[:, start : start + _PART]
        at = torch.arange(start, start + part.shape[1], device=q.device)[:, None, None]
        scores, error = _scores(part, means)
        weights = (scale * scores).masked_fill(blocks >= (at + 1) // block_size, -torch.inf).softmax(-1).nan_to_num(0.0)
        shared = weights.unflatten(2, (groups, -1)).sum(3)
        rivals = (blocks > 0) & (blocks < at // block_size)
        moved = 2 * scale * (error * weights).unflatten(2, (groups, -1)).sum(3).amax(-1)
        several = at[..., 0] // block_size - 1 > best
        found = _gap(shared.masked_fill(~rivals, -torch.inf), moved, best, several)
        clear.append(found.repeat_interleave(q.shape[2] // groups, 2))
    return torch.cat(clear, 1)


def _gap(scores: Tensor, moved: Tensor, best: int, several: Tensor) -> Tensor:
    """Whether the best-th score stands clear of the next, `[B, T, H]`; always where there are not several."""
    if best < 1 or scores.shape[-1] <= best:
        return torch.ones(scores.shape[:-1], dtype=torch.bool, device=scores.device)
    top = scores.topk(best + 1, dim=-1).values
    gap = top[..., -2] - top[..., -1]
    return (gap > 2 * moved) | ~several
