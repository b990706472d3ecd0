"""The choice: scores of blocks, and the best of those that are not always in.

A chooser is a query head, the small heads of an index together, or a small head for each key head: scores are
`[B, Hc, T, n]` of the first n blocks. Queries stand at `positions` `[B, T]` int64 of their sequences. Of equal scores
the earliest are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.block_sparse import best_blocks, block_scores

from .options import Rule
from .products import Products

Scores = Callable[[slice], Tensor]
"""Scores `[B, Hc, t, n]` of the first n blocks for the queries of a slice."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How blocks are chosen: by ``scores`` (None where every candidate is taken) under a ``rule``, by ``choosers``.

    ``gated``: the logits of a chosen block's keys get the logarithm of the sigmoid of its score, through which the
    scores learn. ``products``: what the scores are made of, for kernels, which without it leave the choice to PyTorch.
    ``blocks`` `[B, Hc, T, K]` int64, -1 for none: what was chosen, where that is known, always with what is always in.
    """

    rule: Rule
    scores: Scores | None
    choosers: int
    gated: bool = False
    products: Callable[[], Products] | None = None
    blocks: Tensor | None = None

    @property
    def drops(self) -> bool:
        """Whether some candidates are not taken."""
        return self.scores is not None or self.blocks is not None


def group_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """q_g . k, `[B, G, T, n]` in float32 at least, of queries `[B, T, G, I]` and keys `[B, n, I]`."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    return queries.to(dtype).transpose(1, 2) @ keys.to(dtype)[:, None].mT


def bound_scores(q: Tensor, bounds: Tensor) -> Tensor:
    """The most that q . k can be, `[B, Hq, T, n]`, of q `[B, T, Hq, D]` and keys between `bounds` `[B, n, 2, Hkv, D]`.

    sum over channels of max(q min, q max) (Quest, arXiv 2406.10774, algorithm 1).
    """
    least, greatest = bounds.unbind(2)
    return block_scores(q.clamp(min=0), greatest) + block_scores(q.clamp(max=0), least)


def best_of_block(scores: Tensor, block_size: int) -> Tensor:
    """The highest score in each complete block, `[..., S // block_size]` of `[..., S]`."""
    count = scores.shape[-1] // block_size
    if block_size == 1:
        return scores
    return torch.unflatten(scores[..., : count * block_size], -1, (count, block_size)).amax(-1)


def edges(positions: Tensor, rule: Rule) -> Tensor:
    """`[B, T]`: blocks before those that are always in at the end; candidates are `rule.first` up to there."""
    return ((positions + rule.tail) // rule.block_size - rule.local).clamp(min=0)


def candidates(positions: Tensor, blocks: int, rule: Rule) -> Tensor:
    """Which of the first `blocks` blocks a score is asked of, `[B, 1, T, blocks]`."""
    index = torch.arange(blocks, device=positions.device)
    return ((index >= rule.first) & (index < edges(positions, rule)[..., None]))[:, None]


def seen_blocks(best: Tensor, positions: Tensor, blocks: int, rule: Rule) -> Tensor:
    """`best` `[B, Hc, T, n]` and what is always in, `[B, Hc, T, blocks]` of all; blocks after a query are in too."""
    index = torch.arange(blocks, device=best.device)
    always = (index < rule.first) | (index >= edges(positions, rule)[..., None])
    return F.pad(best, (0, blocks - best.shape[-1])) | always[:, None]


def chosen_blocks(scores: Tensor | None, positions: Tensor, rule: Rule) -> Tensor:
    """What is always in, then the best of the candidates, `[B, Hc, T, local + 1 + first + top_k]`, -1 for none.

    Without `scores` all candidates of at most `rule.top_k` are taken, by one chooser.
    """
    edge = edges(positions, rule)[:, None, :, None]
    own = (positions // rule.block_size)[:, None, :, None]
    device = positions.device
    end = edge + torch.arange(rule.local + 1, device=device)
    start = torch.arange(rule.first, device=device)
    always = torch.cat((torch.where(end <= own, end, -1), torch.where(start < edge, start, -1)), dim=-1)
    if scores is None:
        rest = rule.first + torch.arange(rule.top_k, device=device)
        return torch.cat((always, torch.where(rest < edge, rest, -1)), dim=-1)
    allowed = candidates(positions, scores.shape[-1], rule)
    best = best_blocks(scores.masked_fill(~allowed, -torch.inf), rule.top_k)
    best = F.pad(best, (0, rule.top_k - best.shape[-1]), value=-1)
    return torch.cat((always.expand(-1, scores.shape[1], -1, -1), best), dim=-1)


def found_blocks(choice: Choice, part: slice, positions: Tensor) -> Tensor:
    """What the queries of a slice, at `positions` `[B, t]`, see: `[B, Hc, t, K]`, -1 for none."""
    if choice.blocks is not None:
        return choice.blocks[:, :, part]
    return chosen_blocks(None if choice.scores is None else choice.scores(part), positions, choice.rule)
