"""Which choices of blocks are clear: a mean rounded to bfloat16 must not move them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

ROUNDING = 2.0**-7
"""Of |q| |mean| element by element: four times the error that rounding the mean to bfloat16 makes."""

_PART = 2048


def after_cached(clear: Callable[..., Tensor], q: Tensor, k: Tensor, lengths: Tensor, **sizes: int) -> Tensor:
    """``clear(q, k, None, **sizes)`` of queries `[B, T, Hq, D]` that are the last of each sequence's first `lengths`
    `[B]` keys."""
    made = []
    for row, length in enumerate(lengths.tolist()):
        queries = q[row : row + 1]
        whole = torch.cat((queries[:, :1].expand(-1, length - q.shape[1], -1, -1), queries), 1)
        made.append(clear(whole, k[row : row + 1, :length], None, **sizes)[:, length - q.shape[1] :])
    return torch.cat(made)


def of_steps(clear: Callable[..., Tensor], inputs: Mapping[str, Tensor], **sizes: int) -> Tensor:
    """``clear(q, k, None, **sizes)`` `[B, H]` of one token ``q`` `[B, H, D]` each over a cache ``k`` `[B, S, G, D]` of
    ``lengths`` `[B]`: as if it were the last of a sequence."""
    found = []
    for row, length in enumerate(inputs["lengths"].tolist()):
        q = inputs["q"][row : row + 1, None].expand(1, length, -1, -1)
        found.append(clear(q, inputs["k"][row : row + 1, :length], None, **sizes)[0, -1])
    return torch.stack(found)


def by_sequence(
    q: Tensor, k: Tensor, bounds: Tensor | None, block_size: int, clear: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """``clear(q, k)`` of the tokens of each sequence, in float64, `[B, T, Hq]`; a sequence of which no block is
    complete has no choice, and so a clear one."""
    made = torch.ones(q.shape[:3], dtype=torch.bool, device=q.device)
    for start, end in _spans(bounds, q.shape[1]):
        if end - start >= block_size:
            made[:, start:end] = clear(q[:, start:end].double(), k[:, start:end].double())
    return made


def means_of(q: Tensor, k: Tensor, block_size: int) -> Tensor:
    """Mean keys of the complete blocks, for each query head, `[B, n, Hq, D]`."""
    count = k.shape[1] // block_size
    means = k[:, : count * block_size].unflatten(1, (count, block_size)).mean(2) if count else k[:, :0]
    return means.repeat_interleave(q.shape[2] // k.shape[2], 2)


def parts_of(q: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Queries `[B, t, Hq, D]` part by part, and the index of each in the sequence `[t]`."""
    for start in range(0, q.shape[1], _PART):
        part = q[:, start : start + _PART]
        yield part, torch.arange(start, start + part.shape[1], device=q.device)


def scores_of(q: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Products `[B, T, H, n]` with the means, and what rounding may move of each."""
    scores = torch.einsum("bthd,bnhd->bthn", q, means)
    return scores, ROUNDING * torch.einsum("bthd,bnhd->bthn", q.square(), means.square()).sqrt()


def gap(scores: Tensor, moved: Tensor, best: int, several: Tensor) -> Tensor:
    """Whether the best-th score stands clear of the next, `[B, T, H]`; always where there are not several."""
    if best < 1 or scores.shape[-1] <= best:
        return torch.ones(scores.shape[:-1], dtype=torch.bool, device=scores.device)
    top = scores.topk(best + 1, dim=-1).values
    return (top[..., -2] - top[..., -1] > 2 * moved) | ~several


def _spans(bounds: Tensor | None, tokens: int) -> list[tuple[int, int]]:
    """Start and end of each sequence that has tokens."""
    ends = [0, tokens] if bounds is None else bounds.tolist()
    return [(start, end) for start, end in itertools.pairwise(ends) if end > start]
