"""The choice of mixture of block attention: for each query head the past blocks of highest q . mean(k)."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import load_rows, load_span
from archsearch.ops.triton.blocks import NOTHING, blocks_of, keep_best, no_choice, rank_of


@triton.jit(do_not_specialize=["T", "q_heads"])
def choose_past(
    q,
    means,
    firsts,
    owns,
    chosen,
    T,
    q_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    SLOTS_UP: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """chosen `[B * T, HEADS, SLOTS]` among the blocks `firsts` to `owns` - 1 of each query, -1 for none.

    means `[blocks, KV_HEADS, D]`; grid (tiles of T, HEADS, B).
    """
    at, head = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    tokens, valid = tl.program_id(2) * T + tl.minimum(at, T - 1), at < T
    first, own = tl.load(firsts + tokens), tl.load(owns + tokens)
    q_tile = load_rows(q, tokens, valid, q_heads, head, D, WIDTH)
    best = no_choice(M, SLOTS_UP)
    end = tl.max(own)
    for start in range(tl.min(first), end, N):
        blocks = start + tl.arange(0, N)
        mean = load_span(means, start, end, KV_HEADS, head // (HEADS // KV_HEADS), N, D, WIDTH)
        scores = tl.dot(q_tile, tl.trans(mean), input_precision=PRECISION)
        past = (blocks[None, :] >= first[:, None]) & (blocks[None, :] < own[:, None])
        ranks = tl.where(past, rank_of(scores, blocks[None, :]), NOTHING)
        best = keep_best(best, ranks, SLOTS)
    slots = tl.arange(0, SLOTS_UP)
    places = (tokens.to(tl.int64) * HEADS + head)[:, None] * SLOTS + slots[None, :]
    tl.store(chosen + places, blocks_of(best), mask=valid[:, None] & (slots < SLOTS)[None, :])
