"""Attention over a window of tokens and entries of blocks, in one softmax: the pure op.

All heads share one key a row, which is its value too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsearch.ops.block_sparse import additive_mask, best_blocks
from archsearch.ops.impl import choose_impl
from archsearch.ops.index_scores import best_mask
from archsearch.ops.pieces import pieces
from archsearch.ops.softmax import masked_attention, scale_of

OP = "compressed_attention"
WHY = "masks over the band and the entries before a piece of queries, chosen rows over many entries"
PIECE_TOKENS = 256
"""Queries of a piece at most, so that what comes after them is left out."""
ENTRIES_A_ROW = 64
"""Entries for each that is chosen, up to which a mask over all costs less than gathering rows."""

Scores = Callable[[slice, int], Tensor]
"""Scores `[B, 1, t, n]` of the first n entries for the queries of a slice."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What T queries at ``order`` `[B, T]` of their sequences may see: the last ``window`` of the tokens in ``rows``
    `[B, R + T, D]`, of which row j is the token ``order[:, 0] - R + j``, and of ``entries`` `[B, n, D]` of
    ``block_size`` tokens each those that are complete, or their best ``top_k`` by ``scores``."""

    rows: Tensor
    entries: Tensor
    order: Tensor
    window: int
    block_size: int
    top_k: int = 0
    scores: Scores | None = None


def compressed_attention(q: Tensor, seen: Seen, sink: Tensor | None, *, impl: str = "auto") -> Tensor:
    """softmax([q k^T D^-0.5, sink]) k over what each query sees, `[B, T, H, D]`.

    q `[B, T, H, D]`; ``sink`` `[H]` are logits that take part in the sum of exponentials alone. ``impl`` "reference"
    forms explicit products. Raises `OptionsError`, `KernelUnavailableError`.
    """
    explicit = choose_impl(OP, impl, why=WHY) == "reference"
    if not q.numel():
        return q + 0 * (seen.rows.sum() + seen.entries.sum())
    count, entries = q.shape[1], seen.entries.shape[1]
    gathers = seen.scores is not None and (count == 1 or entries > ENTRIES_A_ROW * seen.top_k) and not explicit
    form = _gathered if gathers else _explicit if explicit else _masked
    width = seen.rows.shape[1] - count
    held = q.shape[2] * (min(seen.window, width + count) + PIECE_TOKENS + entries)
    parts = pieces(count, q.shape[0] * held, longest=PIECE_TOKENS)
    if len(parts) == 1:
        return form(parts[0], q, seen.rows, seen.entries, seen, sink)
    outputs = [checkpoint(form, part, q, seen.rows, seen.entries, seen, sink, use_reentrant=False) for part in parts]
    return torch.cat(outputs, dim=1)


def _band(part: slice, rows: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
    """The rows `[B, b, D]` that some query of the slice has in its window, and which each sees, `[B, t, b]`."""
    before = rows.shape[1] - seen.order.shape[1]
    first = max(0, part.start + before - seen.window + 1) if seen.window else part.stop + before
    order = seen.order[:, part, None]
    places = seen.order[:, :1] - before + torch.arange(first, part.stop + before, device=rows.device)
    places = places[:, None]
    return rows[:, first : part.stop + before], (places <= order) & (places > order - seen.window) & (places >= 0)


def _complete(part: slice, entries: int, seen: Seen) -> Tensor:
    """Which of the first entries are complete for each query of the slice, `[B, t, n]`."""
    done = (seen.order[:, part, None] + 1) // seen.block_size
    return torch.arange(entries, device=done.device) < done


def _last(part: slice, entries: Tensor, seen: Seen) -> int:
    """Entries that some query of the slice may see."""
    after: int = seen.order.shape[1] - part.stop
    return max(0, int(entries.shape[1]) - after // seen.block_size)


def _visible(part: slice, q: Tensor, rows: Tensor, entries: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
    """Keys `[B, S, D]` of the band and of the entries, and which each query sees, `[B, t, S]`."""
    band, in_window = _band(part, rows, seen)
    count = _last(part, entries, seen)
    chosen = _complete(part, count, seen)
    if seen.scores is not None:
        with torch.no_grad():
            scores = seen.scores(part, count)[:, 0]
            chosen = best_mask(scores.masked_fill(~chosen, -torch.inf), seen.top_k)
    return torch.cat((band, entries[:, :count]), dim=1), torch.cat((in_window, chosen), dim=-1)


def _masked(part: slice, q: Tensor, rows: Tensor, entries: Tensor, seen: Seen, sink: Tensor | None) -> Tensor:
    keys, visible = _visible(part, q, rows, entries, seen)
    q, scale = q[:, part], scale_of(q, None)
    if sink is not None:  # one more channel, in which a row of the sink alone meets its logit
        logit = (sink.to(q.dtype) / scale)[:, None].expand(*q.shape[:-1], 1)
        q, keys = torch.cat((q, logit), dim=-1), F.pad(keys, (0, 1, 0, 1))
        keys = keys + F.pad(keys.new_ones(1, 1), (keys.shape[2] - 1, 0, keys.shape[1] - 1, 0))
        visible = F.pad(visible, (0, 1), value=True)
    keys = keys[:, :, None]
    out = masked_attention(q, keys, keys, additive_mask(visible, q.dtype), scale)
    return out if sink is None else out[..., :-1]


def _explicit(part: slice, q: Tensor, rows: Tensor, entries: Tensor, seen: Seen, sink: Tensor | None) -> Tensor:
    """By explicit products, in float32 at least."""
    keys, visible = _visible(part, q, rows, entries, seen)
    wide = keys.to(torch.promote_types(q.dtype, torch.float32))
    logits = torch.einsum("bthd,bsd->bths", q[:, part].to(wide.dtype), wide) * scale_of(q, None)
    weights = _weights(logits.masked_fill(~visible[:, :, None], -torch.inf), sink)
    return torch.einsum("bths,bsd->bthd", weights, wide).to(q.dtype)


def _gathered(part: slice, q: Tensor, rows: Tensor, entries: Tensor, seen: Seen, sink: Tensor | None) -> Tensor:
    """Over the chosen entries of each query; no other is read."""
    assert seen.scores is not None
    band, in_window = _band(part, rows, seen)
    with torch.no_grad():
        count = _last(part, entries, seen)
        scores = seen.scores(part, count)[:, 0].masked_fill(~_complete(part, count, seen), -torch.inf)
        chosen = best_blocks(scores, seen.top_k)
    there = chosen >= 0
    own = entries[torch.arange(len(q), device=q.device)[:, None, None], chosen.clamp(min=0)]
    own = torch.where(there[..., None], own, 0)  # [B, t, K, D]
    q = q[:, part] * scale_of(q, None)
    wide = torch.promote_types(q.dtype, torch.float32)
    near, far = torch.einsum("bthd,bsd->bths", q, band), q @ own.mT
    visible = torch.cat((in_window, there), dim=-1)[:, :, None]
    weights = _weights(torch.cat((near, far), dim=-1).to(wide).masked_fill(~visible, -torch.inf), sink).to(q.dtype)
    of_band, of_own = weights.split([band.shape[1], own.shape[2]], dim=-1)
    out: Tensor = torch.einsum("bths,bsd->bthd", of_band, band) + of_own @ own
    return out


def _weights(logits: Tensor, sink: Tensor | None) -> Tensor:
    """Softmax of `[B, t, H, S]` beside the sink's logit, which is left out of the result."""
    if sink is None:
        return logits.softmax(-1)
    column = sink.to(logits.dtype)[:, None].expand(*logits.shape[:-1], 1)
    return torch.cat((logits, column), dim=-1).softmax(-1)[..., :-1]
