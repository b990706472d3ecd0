"""2-simplicial attention in windows: the pure op."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsearch.ops.impl import choose_impl
from archsearch.ops.softmax import scale_of

from .options import Score

OP = "simplicial_attention"
WHY = "blocks of queries over the band of their windows, in PyTorch"
BLOCK = 16
"""Queries that share a span of first keys."""
PIECE_ELEMENTS = 2**22
"""Scores that are held at a time; of more, blocks are made again in the backward pass."""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """What T queries see in windows of w and w2: first keys and values `[B, w - 1 + T, G, D]`, second ones
    `[B, w2 - 1 + T, G, D]`. Of the rows before the T tokens themselves the last ``before`` `[B]` are tokens."""

    k: Tensor
    v: Tensor
    k2: Tensor
    v2: Tensor
    before: Tensor


def simplicial_attention(q: Tensor, spans: Spans, *, score: Score = "product", impl: str = "auto") -> Tensor:
    """Sums of v_j * v2_l by the softmax over pairs (j, l) of sum_d q_d k_jd k2_ld D^-0.5, `[B, T, Hq, D]`.

    q `[B, T, Hq, D]`, Hq a multiple of G; j and l run over the windows of a query, itself included (2-simplicial
    attention, arXiv 2507.02754; Clift et al., arXiv 1909.00668). ``score`` "determinant": of the sum over `groups` g of
    det(q_g, k_jg, k2_lg) D^-0.5 (section 5 of the former). ``impl`` "reference" takes each query by itself. Costs
    T w w2 products. Raises `OptionsError`, `KernelUnavailableError`.
    """
    size = 1 if choose_impl(OP, impl, why=WHY) == "reference" else min(BLOCK, max(1, q.shape[1]))
    batch, tokens, heads, width = q.shape
    shared, window, second = spans.k.shape[2], spans.k.shape[1] - tokens + 1, spans.k2.shape[1] - tokens + 1
    if not q.numel():
        return q + 0 * (spans.k.sum() + spans.v.sum() + spans.k2.sum() + spans.v2.sum())
    count, spare = -(-tokens // size), -tokens % size
    rows = F.pad(q * scale_of(q, None), (0, 0, 0, 0, 0, spare)).view(batch, count, size, shared, -1, width)
    k, v = (_spans(x, spare, window - 1 + size, size) for x in (spans.k, spans.v))
    k2, v2 = (_spans(x, spare, second, 1).unflatten(1, (count, size)) for x in (spans.k2, spans.v2))
    seen = _seen(spans.before, count, size, window, second)
    step = max(1, PIECE_ELEMENTS // (batch * heads * size * second * k.shape[3]))
    pieces = []
    for start in range(0, count, step):
        part = slice(start, start + step)
        inputs = [x[:, part] for x in (rows, k, v, k2, v2, seen)]
        blocks = partial(_blocks, score=score)
        pieces.append(checkpoint(blocks, *inputs, use_reentrant=False) if step < count else blocks(*inputs))
    return torch.cat(pieces, dim=1).reshape(batch, count * size, heads, width)[:, :tokens]


def simplicial_attention_step(
    q: Tensor,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    lengths: Tensor,
    *,
    score: Score = "product",
) -> Tensor:
    """The same of one token a sequence over its rings, in which ``lengths`` `[B]` rows are filled, or all.

    q `[B, Hq, D]`; first and second keys and values `[B, R, G, D]` and `[B, R2, G, D]`.
    """
    shared = first[0].shape[2]
    k, v, k2, v2 = (x.to(q.dtype).transpose(1, 2)[:, None] for x in (*first, *second))
    inside = [torch.arange(x.shape[3], device=q.device) < lengths[:, None] for x in (k, k2)]
    seen = (inside[1][:, :, None] & inside[0][:, None])[:, None, None]
    rows = (q * scale_of(q, None)).unflatten(1, (shared, -1))[:, None, None]
    return _blocks(rows, k, v, k2[:, :, None], v2[:, :, None], seen, score=score)[:, 0, 0]


def groups(x: Tensor) -> Tensor:
    """Channels `[..., D]` by groups of three `[..., D // 3, 3]`; one or two that are left over are in none.

    Of p groups, number i has the channels 2i, 2i + 1 and 2p + i, so that a rotation of leading pairs of channels turns
    each group around its third.
    """
    count = x.shape[-1] // 3
    pairs, third, _ = x.split([2 * count, count, x.shape[-1] - 3 * count], dim=-1)
    return torch.cat((torch.unflatten(pairs, -1, (count, 2)), third[..., None]), dim=-1)


def _spans(x: Tensor, spare: int, length: int, step: int) -> Tensor:
    """`[B, S, G, D]` as spans of so many rows, each `step` after the one before, `[B, n, G, length, D]`."""
    return F.pad(x, (0, 0, 0, 0, 0, spare)).unfold(1, length, step).transpose(3, 4)


def _seen(before: Tensor, count: int, size: int, window: int, second: int) -> Tensor:
    """Which pairs of second and first key a query sees, `[B, count, size, w2, w - 1 + size]`."""
    device = before.device
    query = torch.arange(count * size, device=device).view(count, size, 1)
    first = torch.arange(count, device=device)[:, None, None] * size + torch.arange(1 - window, size, device=device)
    pair = query + torch.arange(1 - second, 1, device=device)
    there = -before[:, None, None, None]
    of_first = (first <= query) & (first > query - window) & (first >= there)
    return (pair >= there)[..., None] & of_first[..., None, :]


def _blocks(q: Tensor, k: Tensor, v: Tensor, k2: Tensor, v2: Tensor, seen: Tensor, *, score: Score) -> Tensor:
    """`[B, n, C, Hq, D]` of q `[B, n, C, G, R, D]`, k, v `[B, n, G, S, D]`, k2, v2 `[B, n, C, G, w2, D]`, seen
    `[B, n, C, w2, S]`.

    A query times each second key is a query of first keys; so is their cross product, as det(a, b, c) = b . (c x a).
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    query, key = q.transpose(2, 3)[..., None, :], k2.transpose(2, 3)[:, :, :, :, None]
    if score == "determinant":
        paired, k = torch.linalg.cross(groups(key), groups(query)).flatten(-2), groups(k).flatten(-2)
    else:
        paired = query * key
    shape = (q.shape[2], q.shape[4], k2.shape[4])
    scores = (paired.flatten(3, 5) @ k.mT).to(wide).unflatten(3, shape)
    scores = scores.masked_fill(~seen[:, :, None, :, None], -torch.inf)
    weights = scores.flatten(5).softmax(-1).to(v.dtype).view(scores.shape)
    summed = torch.unflatten(weights.flatten(3, 5) @ v, 3, shape)
    out = (summed * v2.transpose(2, 3)[:, :, :, :, None]).sum(5)
    return out.transpose(2, 3).flatten(3, 4)
