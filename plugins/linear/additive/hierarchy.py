"""A hierarchy of states in chunks: of the past, states of a power of 2 tokens each, weighed by every token.

The tokens before token t are those of the powers of 2 that make up t, the largest first (a Fenwick tree): token j is of
level bit_length(t xor j), token t itself of level 0. Row r of a state holds the 2^r tokens of bit r of their count, and
nothing that may be read where that bit is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..chunk.chunks import chunked
from ..chunk.decay import decayed_products
from ..chunk.form import chunk_length
from ..chunk.triangular import unit_lower_inverse
from ..tokens import CanonicalTokens

Rows = dict[int, Tensor]
"""States `[B, H, K, V]` by the bit of the count of tokens whose tokens they hold."""


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """Of chunks `[N, B, H, C, ...]`: what tokens ``read`` of others of their chunk; the ``queries`` that meet states at
    its start; ``keys`` as they are left at its end, and the ``values`` that they write; the ``weights`` of levels; what
    is ``left`` of a state. Of the delta rule, None else: how values become writes, ``known`` `[.., C, C]`, and the keys
    ``recalled`` `[.., C, K]` that take away of a state what they recall."""

    read: Tensor
    queries: Tensor
    keys: Tensor
    values: Tensor
    weights: Tensor
    left: list[Tensor | None]
    known: Tensor | None
    recalled: Tensor | None


def hierarchy(
    tokens: CanonicalTokens, weights: Tensor, rows: Rows, seen: int, scale: float, *, want_rows: bool = True
) -> tuple[Tensor, Rows]:
    """Outputs `[B, T, H, V]` of tokens after ``seen`` others, whose states are ``rows``, and the rows after them.

    ``weights`` `[B, T, H, L]` are those of levels 0 to L - 1; levels beyond have the weight of the last. The decay is
    none, by head or by channel.
    """
    length = tokens.q.shape[1]
    size = chunk_length(length, 64)
    skipped = seen % size  # tokens of the first chunk that the rows hold already
    tokens = tokens.map(lambda x: F.pad(x, (0, 0) * (x.dim() - 2) + (skipped, 0)))
    alone = skipped + length <= size and not (rows or want_rows)
    chunks = _chunks(tokens, _padded(weights, skipped, size), scale, alone)
    outputs, count = [], len(chunks.read)
    for n in range(count):
        first = seen - skipped + n * size
        start, end = max(first, seen), min(first + size, seen + length)
        outputs.append(chunks.read[n] + _read(chunks, n, rows, start - first, first))
        if want_rows or n + 1 < count:
            rows = _after(chunks, n, rows, (first, start, end))
    o = torch.stack(outputs).permute(1, 0, 3, 2, 4).flatten(1, 2)
    return o.narrow(1, skipped, length), rows


def _padded(weights: Tensor, skipped: int, size: int) -> Tensor:
    """`[B, T, H, L]` to chunks `[N, B, H, C, L]`, zeros for tokens that are not there."""
    short = -(skipped + weights.shape[1]) % size
    padded = torch.unflatten(F.pad(weights, (0, 0, 0, 0, skipped, short)), 1, (-1, size))
    return padded.permute(1, 0, 3, 2, 4)


def _chunks(tokens: CanonicalTokens, weights: Tensor, scale: float, alone: bool) -> _Chunks:
    """``alone``: of one chunk, which meets no state."""
    size = weights.shape[-2]
    chunks = chunked(tokens, size, scale)
    q, k, beta = chunks.q, chunks.k, chunks.beta
    known, recalled = None, None
    if beta is None:
        (pairs,), ends = decayed_products((q,), k, chunks.log_decay, chunks.decay)
        queries = ends.from_start(0)
    else:
        (pairs, overlaps), ends = decayed_products((q, k * beta[..., None]), k, chunks.log_decay, chunks.decay)
        inverse, queries = unit_lower_inverse(overlaps), ends.from_start(0)
        known, before = inverse * beta[..., None, :], pairs
        pairs = pairs @ known
        if not alone:
            recalled = inverse @ ends.from_start(1)
            queries = queries - before @ recalled
    weighed = pairs * weights.gather(-1, _levels(size, weights).expand(*q.shape[:3], size, size))
    return _Chunks(
        read=weighed @ chunks.v,
        queries=queries,
        keys=ends.to_end(),
        values=chunks.v,
        weights=weights,
        left=list(ends.left(len(q))),
        known=known,
        recalled=recalled,
    )


def _levels(size: int, weights: Tensor) -> Tensor:
    """Levels `[C, C]` of the tokens of a chunk for one another, as far as there are weights."""
    place = torch.arange(size, device=weights.device)
    apart = place[:, None] ^ place
    bounds = 2 ** torch.arange(size.bit_length() - 1, device=weights.device)
    return (apart[..., None] >= bounds).sum(-1).clamp(max=weights.shape[-1] - 1)


def _read(chunks: _Chunks, n: int, rows: Rows, start: int, first: int) -> Tensor | float:
    """What the tokens of chunk n from place `start` on read of the rows, `[B, H, C, V]`; place 0 is token `first`."""
    weights = chunks.weights[n]
    read: Tensor | float = 0.0
    size, most = weights.shape[-2], weights.shape[-1] - 1
    for bit, state in rows.items():
        if 1 << bit < size:  # tokens of this chunk, whose level rises within it
            begins = _block(first + start, bit) - first
            level = _levels(size, weights)[:, begins, None].expand(*weights.shape[:-1], 1)
            weight = weights.gather(-1, level)
        else:
            weight = weights[..., min(bit + 1, most), None]
        read = read + weight * (chunks.queries[n] @ state)
    return read


def _after(chunks: _Chunks, n: int, rows: Rows, tokens: tuple[int, int, int]) -> Rows:
    """The rows after chunk n, whose place 0 is the first of ``tokens``, and whose tokens are from the second up to the
    third."""
    first, start, end = tokens
    after: Rows = {}
    keys, left = chunks.keys[n].mT, chunks.left[n]
    for bit, state in rows.items():
        kept = state if left is None else left * state
        if chunks.recalled is not None:
            kept = kept - keys @ (chunks.recalled[n] @ state)
        _add(after, _row(end, _block(start, bit)), kept)
    whole = end - first == keys.shape[-1]
    for bit in (
        [keys.shape[-1].bit_length() - 1] if whole else [bit for bit in range(end.bit_length()) if end >> bit & 1]
    ):
        begins = first if whole else _block(end, bit)
        if begins + (1 << bit) > start and begins >= first:
            _add(after, _row(end, begins), _written(chunks, n, slice(begins - first, begins - first + (1 << bit))))
    return after


def _written(chunks: _Chunks, n: int, places: slice) -> Tensor:
    """What the values of some places of chunk n have written at its end, `[B, H, K, V]`."""
    keys, values = chunks.keys[n], chunks.values[n][..., places, :]
    if chunks.known is None:
        return keys[..., places, :].mT @ values
    return keys.mT @ (chunks.known[n][..., places] @ values)


def _block(count: int, bit: int) -> int:
    """The first token of the row of a bit after so many tokens."""
    return count >> bit + 1 << bit + 1


def _row(count: int, token: int) -> int:
    """The row that holds a token after so many."""
    return (count ^ token).bit_length() - 1


def _add(rows: Rows, bit: int, state: Tensor) -> None:
    rows[bit] = rows[bit] + state if bit in rows else state
