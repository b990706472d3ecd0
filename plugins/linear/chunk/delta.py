"""The delta rules from chunk to chunk: what a token takes away of the state, in one triangular system a chunk.

A token reads r^T S of the state and takes it away along e before it writes k v^T; e is the written key unless it is
given. With P as in `form`, W = P(r, e) below the diagonal and S the state at the start of the chunk, what every token
adds along e is u:

    (I + W) u = v - (r exp G) S                  e = k, which is written to with the same product
    (I + W) u = -P(r, k) v - (r exp G) S         e apart from k, where k v^T is added beside it

A read before the token's decay meets sums of log decays up to the token before it: P and exp G of rows moved ahead by
one token, taken back by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tokens import CanonicalTokens, Removal
from .decay import decayed_products
from .ends import ChunkEnds
from .triangular import unit_lower_solve


def delta(q: Tensor, chunks: CanonicalTokens, state: Tensor | None, want_state: bool) -> tuple[Tensor, Tensor]:
    """Outputs `[N, B, H, C, V]` of chunks with a beta or a removal, and the last state `[B, H, K, V]`, which means
    nothing unless it is wanted; ``q`` is `chunks.q`."""
    removal, v = _removal(chunks)
    rows = _ahead(removal.read) if removal.early else removal.read
    weights, met, decay = _products(q, rows, chunks, chunks.k, removal.early)
    known, beside, added, keys = v, None, None, decay.to_end().mT
    if removal.along is not None:
        known, beside, added = -(met.tril(-1) @ v), weights @ v, keys @ v
        weights, met, along = _products(q, rows, chunks, removal.along, removal.early)
        keys = along.to_end().mT
    if len(q) == 1 and state is None and not want_state:
        o = weights @ unit_lower_solve(met, known)[0]
        return o if beside is None else o + beside, known.new_zeros(0)
    reads = decay.from_start(1)
    reads = torch.cat((removal.read[..., :1, :], reads[..., :-1, :]), -2) if removal.early else reads
    u, w = unit_lower_solve(met, known, reads)
    ends: list[Tensor] = []
    writes: list[Tensor] = []
    steps = zip(u.unbind(), w.unbind(), keys.unbind(), decay.left(len(q)), strict=True)
    besides = [None] * len(q) if added is None else added.unbind()
    for (u_n, w_n, keys_n, left), also in zip(steps, besides, strict=True):
        before = ends[-1] if ends else state
        writes.append(u_n if before is None else u_n - w_n @ before)
        written = keys_n @ writes[-1]
        ends.append(_carry(before, left, written if also is None else written + also))
    o = weights @ torch.stack(writes) + _read(state, ends, decay)
    return o if beside is None else o + beside, ends[-1]


def _removal(chunks: CanonicalTokens) -> tuple[Removal, Tensor]:
    """What is taken away, and what is written beside it: for beta, (beta k, k) and beta v."""
    if chunks.removal is not None:
        return chunks.removal, chunks.v
    assert chunks.beta is not None
    beta = chunks.beta[..., None]
    return Removal(read=chunks.k * beta), chunks.v * beta


def _products(
    q: Tensor, rows: Tensor, chunks: CanonicalTokens, keys: Tensor, early: bool
) -> tuple[Tensor, Tensor, ChunkEnds]:
    """P of the queries and of the reads with `keys` `[N, B, H, C, C]`, of the second only what is below the diagonal;
    and the decays at the ends."""
    (weights, met), ends = decayed_products((q, rows), keys, chunks.log_decay, chunks.decay)
    if early:
        pairs = met.tril(-1) + torch.diag_embed((rows * keys).sum(-1))  # a row meets its own place's key undecayed
        met = F.pad(pairs[..., :-1, :], (0, 0, 1, 0))
    return weights, met, ends


def _ahead(rows: Tensor) -> Tensor:
    """Rows `[..., C, K]` one place earlier, zeros in the last."""
    return F.pad(rows[..., 1:, :], (0, 0, 0, 1))


def _carry(state: Tensor | None, left: Tensor | None, written: Tensor) -> Tensor:
    """The state `[B, H, K, V]` after a chunk: what is `left` `[B, H, 1 or K, 1]` of the one before, and its writes."""
    if state is None:
        return written
    return state + written if left is None else torch.addcmul(written, left, state)


def _read(state: Tensor | None, ends: list[Tensor], decay: ChunkEnds) -> Tensor:
    """What the tokens of each chunk read of the state that it starts with, given the states at the chunks' ends."""
    first = torch.zeros_like(ends[0]) if state is None else state
    return decay.from_start(0) @ torch.stack([first, *ends[:-1]])
