"""PaTH attention: between a key and a query stands the product of the reflections of the tokens after the key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.impl import choose_impl
from archsearch.ops.softmax import scale_of

from .weights import FAINT, forgotten

OP = "path_attention"
WHY = "blocks of tokens, keys moved from block to block, in PyTorch"
BLOCK = 64
"""Tokens whose reflections are taken together."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Keys of earlier tokens, as the tokens up to now have moved them, and their values, `[B, S, G, D]`; ``lengths``
    `[B]`: how many each sequence has of them."""

    k: Tensor
    v: Tensor
    lengths: Tensor


@dataclass(frozen=True, kw_only=True)
class Decays:
    """Sums of logarithms of forget gates up to each new token `[B, T, Hq]` and each earlier one `[B, S, Hq]`."""

    new: Tensor
    past: Tensor


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """What each of n blocks of C tokens has by itself, for G key heads of R query heads each.

    ``scores`` `[B, n, G, R, C, C]` within the block; ``queries`` `[B, n, G, R, C, D]` moved back to before its first
    token, ``keys`` `[B, n, G, C, D]` on to after its last; a key x before it becomes x - (x ``left``^T) ``right``, both
    `[B, n, G, C, D]`.
    """

    scores: Tensor
    queries: Tensor
    keys: Tensor
    left: Tensor
    right: Tensor


def path_attention(
    q: Tensor,
    new: dict[str, Tensor],
    past: Moved | None,
    *,
    decays: Decays | None = None,
    keep: bool = True,
    impl: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Outputs `[B, T, Hq, D]`, and where they are to be kept the keys `[B, S + T, G, D]` as they stand after the last
    token.

    q `[B, T, Hq, D]`, T > 0; ``new`` has "k", "v" and unit vectors "w" `[B, T, G, D]`, and "beta" `[B, T, G]`. Token t
    makes H_t = I - beta_t w_t w_t^T; the score of query i and key j is q_i . (H_i .. H_(j+1) k_j) D^-0.5 (PaTH, arXiv
    2505.16381), plus with ``decays`` what the tokens after j have forgotten. Chunkwise as there, but
    that earlier keys go along from block to block. ``impl`` "reference" takes blocks of one token. Raises
    `OptionsError`, `KernelUnavailableError`.
    """
    tokens, wide = q.shape[1], torch.promote_types(q.dtype, torch.float32)
    size = 1 if choose_impl(OP, impl, why=WHY) == "reference" else min(BLOCK, tokens)
    groups = new["k"].shape[2]
    rows = (q * scale_of(q, None)).to(wide).unflatten(2, (groups, -1))
    k, v, w, beta = (new[name].to(wide) for name in ("k", "v", "w", "beta"))
    alone = past is None and size == tokens and not keep
    blocks = _blocks(*(_split(x, size) for x in (rows, k, w, beta)), alone=alone)
    values = v.transpose(1, 2)
    keys = k.new_zeros(len(k), groups, 0, k.shape[3])
    hidden = 0
    if past is not None:
        hidden, keys = past.k.shape[1], past.k.to(wide).transpose(1, 2)
        values = torch.cat((past.v.to(wide).transpose(1, 2), values), dim=2)
    outputs = []
    for index, start in enumerate(range(0, tokens, size)):
        count = min(size, tokens - start)
        scores = _scores(blocks, index, count, keys)
        if decays is not None:
            scores = scores + _decay(decays, slice(start, start + count), groups, wide)
        if past is not None:
            unseen = torch.arange(scores.shape[-1], device=q.device) >= past.lengths[:, None]
            unseen = unseen & (torch.arange(scores.shape[-1], device=q.device) < hidden)
            scores = scores.masked_fill(unseen[:, None, None, None], -torch.inf)
        if decays is not None:
            scores = scores.masked_fill(scores < scores.detach().amax(-1, keepdim=True) + FAINT, -torch.inf)
        weights = scores.softmax(-1)
        shared = weights.shape[2:4]
        summed = (weights.flatten(2, 3) @ values[:, :, : weights.shape[-1]]).unflatten(2, shared)
        outputs.append(summed.permute(0, 3, 1, 2, 4).flatten(2, 3))
        if not keep and start + size >= tokens:
            return torch.cat(outputs, dim=1).to(q.dtype), None
        if keys.shape[2]:
            keys = _along(keys, blocks.left[:, index], blocks.right[:, index])
        keys = torch.cat((keys, blocks.keys[:, index]), dim=2)
    return torch.cat(outputs, dim=1).to(q.dtype), keys[:, :, : hidden + tokens].transpose(1, 2)


def _split(x: Tensor, size: int) -> Tensor:
    """`[B, T, G, ...]` in blocks, `[B, n, G, size, ...]`, the last one filled with zeros: those tokens move no key."""
    padded = F.pad(x, (0, 0) * (x.dim() - 2) + (0, -x.shape[1] % size))
    return torch.unflatten(padded, 1, (-1, size)).transpose(2, 3)


def _blocks(q: Tensor, k: Tensor, w: Tensor, beta: Tensor, *, alone: bool) -> _Blocks:
    """Of q `[B, n, G, C, R, D]`, k and w `[B, n, G, C, D]`, beta `[B, n, G, C]`; of a block that is `alone` nothing but
    the scores.

    The product of the reflections j + 1 .. i is I - W^T A W over those tokens, with A = (I + L)^-1 diag(beta) and L the
    part of diag(beta) W W^T below the diagonal: A of a part is that part of A.
    """
    q = q.transpose(3, 4)
    lower = (beta[..., None] * (w @ w.mT)).tril(-1)
    mixed = torch.linalg.solve_triangular(lower, torch.diag_embed(beta), upper=False, unitriangular=True)
    met = (q.flatten(3, 4) @ w.mT).unflatten(3, q.shape[3:5]).tril()
    moves = mixed @ (w @ k.mT).tril(-1)
    inner = (q.flatten(3, 4) @ k.mT - met.flatten(3, 4) @ moves).unflatten(3, q.shape[3:5])
    if alone:
        return _Blocks(scores=inner, queries=q, keys=k, left=w, right=w)
    right = mixed @ w
    back = q - (met.flatten(3, 4) @ right).unflatten(3, q.shape[3:5])
    return _Blocks(scores=inner, queries=back, keys=k - moves.mT @ w, left=right, right=w)


def _scores(blocks: _Blocks, index: int, count: int, keys: Tensor) -> Tensor:
    """Scores `[B, G, R, count, S + count]` of a block's queries with earlier keys `[B, G, S, D]` and with its own."""
    queries = blocks.queries[:, index, :, :, :count]
    earlier = (queries.flatten(2, 3) @ keys.mT).unflatten(2, queries.shape[2:4])
    own = blocks.scores[:, index, :, :, :count, :count]
    causal = torch.ones(count, count, dtype=torch.bool, device=own.device).tril()
    return torch.cat((earlier, own.masked_fill(~causal, -torch.inf)), dim=-1)


def _along(keys: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Earlier keys `[B, G, S, D]` after a block: by its one matrix where that is smaller than its factors."""
    if 2 * left.shape[2] <= keys.shape[3]:
        return keys - (keys @ left.mT) @ right
    return keys - keys @ (left.mT @ right)


def _decay(decays: Decays, part: slice, groups: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of the new tokens of a slice, `[B, G, R, t, S + stop]`."""
    sums = torch.cat((decays.past, decays.new[:, : part.stop]), dim=1)
    index = torch.arange(part.start, part.stop, device=sums.device) + decays.past.shape[1]
    of_queries, of_keys = forgotten(sums, index.expand(len(sums), -1), dtype)
    return torch.unflatten(of_queries - of_keys, 1, (groups, -1))
