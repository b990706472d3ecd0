"""Attention over chosen blocks, queries a piece at a time: the pure op."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsearch.ops.block_cache import needed_rows
from archsearch.ops.block_sparse import additive_mask, few_keys, visible_keys
from archsearch.ops.block_tiles import attend_blocks
from archsearch.ops.impl import choose_attention, choose_impl
from archsearch.ops.index_scores import best_mask
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.pieces import pieces
from archsearch.ops.softmax import masked_attention, scale_of

from .choice import Choice, candidates, chosen_blocks, found_blocks, seen_blocks
from .listing import listed_blocks
from .options import Rule
from .triton.table import TABLE

OP = TABLE.op
WHY_GATED = "gates of scores are made in PyTorch"
WHY_ALL = "everything is seen"
MOST_PAIRS = 2**31 - 1
"""Choices that the kernels can count."""
WHY = "a mask over few keys, chosen rows or tiles of chosen blocks over many"
PIECE_TOKENS = 256
"""Queries of a piece at most, so that keys after them are left out."""
KEYS_A_ROW = 64
"""Keys for each row that is seen, up to which a mask over all of them costs less than gathering rows."""
SHORTEST_TILE = 8
"""Tokens of a block from which on tiles serve better than rows."""


def indexed_attention(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, choice: Choice, *, impl: str = "auto"
) -> Tensor:
    """softmax(q k^T D^-0.5) v over the keys of chosen blocks up to each query's own, `[B, T, Hq, D]`.

    q `[B, T, Hq, D]` at `positions` `[B, T]` int64, below S - T + t of query t; k, v `[B, S, Hkv, D]` hold every token
    up to there. Scores are asked for a piece of the queries at a time. ``impl`` "reference" masks all pairs; "triton"
    makes the scores tile by tile and reads the chosen rows alone, waits for nothing on the device and takes no gates.
    Raises `OptionsError`, `KernelUnavailableError`.
    """
    chosen = _form(q, k, v, choice, impl)
    if not q.numel():
        return LaidOut(q, k, v).no_outputs()
    if chosen == "triton":
        from .triton.attention import attend

        listed = listed_blocks(choice, positions, k.shape[1], impl=impl)
        return attend(q, k, v, positions, listed, block_size=choice.rule.block_size, scale=scale_of(q, None))
    whole = slice(0, q.shape[1])
    if chosen == "reference":
        return _explicit(q, k, v, positions, whole, choice)
    if q.shape[1] == 1:
        return _over_rows(q, k, v, positions, whole, choice)
    if few_keys(k):
        return _masked(q, k, v, positions, whole, choice)
    if choice.gated or choice.rule.block_size < SHORTEST_TILE:
        return _piecewise(q, k, v, positions, choice)
    with torch.no_grad():
        parts = pieces(q.shape[1], q.shape[0] * choice.choosers * k.shape[1], longest=PIECE_TOKENS)
        found = [found_blocks(choice, part, positions[:, part]) for part in parts]
        blocks = _for_key_heads(torch.cat(found, dim=2), k.shape[2])
    return attend_blocks(q, k, v, blocks, positions, block_size=choice.rule.block_size, scale=scale_of(q, None))


def _form(q: Tensor, k: Tensor, v: Tensor, choice: Choice, impl: str) -> str:
    """The implementation that runs: no kernel makes gates, nor counts more choices than an index of 32 bits can."""
    rule = choice.rule
    slots = min(rule.local + 1 + rule.first + rule.top_k, -(-k.shape[1] // rule.block_size))
    if choice.gated:
        return choose_impl(OP, impl, why=WHY_GATED)
    if q.shape[0] * q.shape[1] * choice.choosers * slots > MOST_PAIRS:
        return choose_impl(OP, impl, why=f"more than {MOST_PAIRS} choices")
    return choose_attention(TABLE, q, v, impl, why=WHY if choice.drops else WHY_ALL, wanted=choice.drops)


def _piecewise(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, choice: Choice) -> Tensor:
    """Under masks or by rows, whichever costs less; each piece is made again in the backward pass."""
    rule = choice.rule
    rows = (rule.local + 1 + rule.first + rule.top_k) * rule.block_size
    masked = k.shape[1] <= KEYS_A_ROW * rows
    held = max(choice.choosers, k.shape[2]) * (k.shape[1] if masked else max(rows * q.shape[3], k.shape[1]))
    form = _masked if masked else _over_rows

    def attend(part: slice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = k.shape[1] - q.shape[1] + part.stop
        return form(q[:, part], k[:, :keys], v[:, :keys], positions[:, part], part, choice)

    parts = pieces(q.shape[1], q.shape[0] * held, longest=PIECE_TOKENS)
    return torch.cat([checkpoint(attend, part, q, k, v, use_reentrant=False) for part in parts], dim=1)


def _seen(k: Tensor, positions: Tensor, part: slice, choice: Choice) -> tuple[Tensor, Tensor | None]:
    """Mask `[B, 1 or Hc, T, S]` of the keys that are seen, and what is added to their logits."""
    size, keys = choice.rule.block_size, k.shape[1]
    if choice.blocks is not None:
        return visible_keys(choice.blocks[:, :, part], positions, keys, size), None
    index = torch.arange(keys, device=k.device)
    causal = (index <= positions[..., None])[:, None]
    if choice.scores is None:
        return causal, None
    blocks = -(-keys // size)
    with torch.set_grad_enabled(choice.gated and torch.is_grad_enabled()):
        scores = choice.scores(part)
    allowed = candidates(positions, scores.shape[-1], choice.rule)
    best = best_mask(scores.detach().masked_fill(~allowed, -torch.inf), choice.rule.top_k)
    seen = seen_blocks(best, positions, blocks, choice.rule)
    added = F.pad(F.logsigmoid(scores).masked_fill(~best, 0.0), (0, blocks - best.shape[-1])) if choice.gated else None
    if size > 1:
        seen = seen.repeat_interleave(size, -1)[..., :keys]
        added = None if added is None else added.repeat_interleave(size, -1)[..., :keys]
    return seen & causal, added


def seen_keys(k: Tensor, positions: Tensor, part: slice, choice: Choice) -> Tensor:
    """Mask `[B, 1 or Hc, t, S]` of the keys of k `[B, S, ...]` that queries of a slice at `positions` `[B, t]` see."""
    return _seen(k, positions, part, choice)[0]


def _masked(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, part: slice, choice: Choice) -> Tensor:
    seen, added = _seen(k, positions, part, choice)
    mask = additive_mask(seen, q.dtype)
    if added is not None:
        mask = mask + added.to(q.dtype)
    if mask.shape[1] not in (1, q.shape[2]):
        mask = mask.repeat_interleave(q.shape[2] // mask.shape[1], 1)
    return masked_attention(q, k, v, mask)


def _explicit(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, part: slice, choice: Choice) -> Tensor:
    """By the mask of all pairs, in float32 at least."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    seen, added = _seen(k, positions, part, choice)
    groups = k.shape[2]
    logits = torch.einsum("bthgd,bshd->bhgts", q.to(dtype).unflatten(2, (groups, -1)), k.to(dtype)) * scale_of(q, None)
    logits = logits.flatten(1, 2)
    share = logits.shape[1] // seen.shape[1]
    if added is not None:
        logits = logits + added.repeat_interleave(share, 1)
    weights = logits.masked_fill(~seen.repeat_interleave(share, 1), -torch.inf).softmax(-1)
    return torch.einsum("bhgts,bshd->bthgd", weights.unflatten(1, (groups, -1)), v.to(dtype)).flatten(2, 3).to(q.dtype)


def _over_rows(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, part: slice, choice: Choice) -> Tensor:
    """q `[B, t, Hq, D]` over its chosen rows of k and v; no other row is read."""
    scores = None
    with torch.set_grad_enabled(choice.gated and torch.is_grad_enabled()):
        if choice.gated and choice.scores is not None:
            scores = choice.scores(part)
    with torch.no_grad():
        if scores is None:
            blocks = found_blocks(choice, part, positions)
        else:
            blocks = chosen_blocks(scores, positions, choice.rule)
        listed = rows_of_blocks(_for_key_heads(blocks, k.shape[2]), positions, choice.rule.block_size)
        rows, seen = listed if choice.gated else needed_rows(*listed)
    batch, heads = rows.shape[:2]
    sequence = torch.arange(batch, device=q.device)[:, None, None, None]
    head = (torch.arange(heads, device=q.device) * k.shape[2] // heads)[:, None, None]
    keys, values = (x[sequence, rows, head].to(q.dtype) for x in (k, v))
    grouped = torch.unflatten(q * scale_of(q, None), 2, (heads, -1)).transpose(1, 2)
    logits = (grouped @ keys.mT).to(torch.promote_types(q.dtype, torch.float32))
    if scores is not None:
        logits = logits + _gates(scores, blocks, choice.rule)
    weights = logits.masked_fill(~seen[:, :, :, None], -torch.inf).softmax(-1).to(q.dtype)
    return (weights @ values).transpose(1, 2).flatten(2, 3)


def _gates(scores: Tensor, blocks: Tensor, rule: Rule) -> Tensor:
    """What is added to the logits of each row, `[B, Hc, t, 1, R]`: of a block that is always in nothing."""
    always = rule.local + 1 + rule.first
    best = blocks[..., always:]
    gates = F.logsigmoid(scores.gather(-1, best.clamp(min=0))).masked_fill(best < 0, 0.0)
    return F.pad(gates, (always, 0)).repeat_interleave(rule.block_size, -1)[:, :, :, None]


def _for_key_heads(chosen: Tensor, key_heads: int) -> Tensor:
    """`chosen` `[B, Hc, T, K]` for `key_heads` choosers at least."""
    return chosen if chosen.shape[1] >= key_heads else chosen.repeat_interleave(key_heads // chosen.shape[1], 1)


def rows_of_blocks(chosen: Tensor, positions: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Rows `[B, Hc, t, R]` of the chosen blocks, and which are seen; the others point at the query's own."""
    at = positions[:, None, :, None]
    if block_size > 1:
        chosen = (chosen[..., None] * block_size + torch.arange(block_size, device=chosen.device)).flatten(3)
    seen = (chosen >= 0) & (chosen <= at)
    return torch.where(seen, chosen, at), seen
