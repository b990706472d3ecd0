"""The chunkwise engine: every update rule and decay, in products over chunks of tokens and one pass over chunks.

Within a chunk, with G the running sum of the log decays, P(a, b)_ij = sum_c a_ic b_jc exp(G_ic - G_jc) for j <= i.
A chunk that starts with the state S gives

    o = P(q, k) u + (q exp G) S          S' = exp(G_C) S + (k exp(G_C - G))^T u

where u is v for the Hebbian rule and solves (I + beta P(k, k) below the diagonal) u = beta (v - (k exp G) S) for the
delta rule, whose other removals are in `delta`. The README derives it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tokens import CanonicalTokens
from .chunks import chunked
from .decay import decayed_products
from .delta import delta
from .hebbian import hebbian

_LONGEST = 128  # the constants of a chunk of C tokens hold C^3 numbers

_CACHED = 1 << 18
"""Numbers of one tensor that are worked on together on a CPU, so that products find them in its cache."""


def chunkwise(
    tokens: CanonicalTokens, state: Tensor | None, scale: float, chunk_size: int, want_state: bool
) -> tuple[Tensor, Tensor]:
    """Outputs `[B, T, H, V]` and the last state `[B, H, K, V]`, which means nothing unless it is wanted."""
    length = tokens.q.shape[1]
    if length == 0:
        return tokens.no_outputs(), tokens.empty_state() if state is None else state
    size = chunk_length(length, chunk_size)
    runs = tokens.split(_run_length(tokens, size))
    outputs, last = [], state
    for index, run in enumerate(runs):
        o, last = _run(run, last, scale, size, want_state or index + 1 < len(runs))
        outputs.append(o)
    o = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return o, o.new_zeros(0) if last is None else last


def _run_length(tokens: CanonicalTokens, size: int) -> int:
    """Tokens that are worked on together, whole chunks: on a CPU as many as have `_CACHED` numbers in one tensor."""
    batch, length, heads, key_dim = tokens.q.shape
    if tokens.q.device.type != "cpu" or torch.compiler.is_compiling():
        return length
    widest = max(size, key_dim, tokens.v.shape[-1])
    return max(1, _CACHED // max(1, batch * heads * size * widest)) * size


def _run(
    tokens: CanonicalTokens, state: Tensor | None, scale: float, size: int, want_state: bool
) -> tuple[Tensor, Tensor]:
    chunks = chunked(tokens, size, scale)
    q = chunks.q
    if chunks.beta is None and chunks.removal is None:
        o, last = _hebbian(q, chunks, state, want_state)
    else:
        o, last = delta(q, chunks, state, want_state)
    return _from_chunks(o, tokens.q.shape[1]), last


def chunk_length(length: int, chunk_size: int) -> int:
    """Tokens a chunk: the largest power of two within `chunk_size` and 128, but no larger than `length` needs."""
    size = 1 << (min(chunk_size, _LONGEST).bit_length() - 1)
    while size // 2 >= length:
        size //= 2
    return size


def _hebbian(q: Tensor, chunks: CanonicalTokens, state: Tensor | None, want_state: bool) -> tuple[Tensor, Tensor]:
    (weights,), decay = decayed_products((q,), chunks.k, chunks.log_decay, chunks.decay)
    v = chunks.v
    if len(q) == 1 and state is None and not want_state:
        return weights @ v, v.new_zeros(0)
    left = None if decay.whole is None else decay.whole.mT
    return hebbian(weights, v, decay.from_start(0), decay.to_end(), left, state, want_last=want_state)


def _from_chunks(x: Tensor, length: int) -> Tensor:
    """`[N, B, H, C, V]` to `[B, T, H, V]`."""
    return x.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :length]
