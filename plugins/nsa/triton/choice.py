"""The choice of native sparse attention: for each key head the blocks of highest compression probability."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import finite, load_rows, load_span
from archsearch.ops.triton.blocks import NOTHING, blocks_of, keep_best, no_choice, rank_of


@triton.jit(do_not_specialize=["T", "q_heads"])
def choose_important(
    q,
    means,
    norms,
    firsts,
    owns,
    chosen,
    scale,
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
    """chosen `[B * T, KV_HEADS, SLOTS]`: the first block of the sequence, then the best between it and the own, by the
    probabilities over the means summed over the query heads; -1 for none.

    means `[blocks, KV_HEADS, D]`, norms `[B * T, HEADS]` of the attention over them; grid (tiles of T, KV_HEADS, B).
    """
    at, kv_head = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    tokens, valid = tl.program_id(2) * T + tl.minimum(at, T - 1), at < T
    first, own = tl.load(firsts + tokens), tl.load(owns + tokens)
    places = (tokens.to(tl.int64) * KV_HEADS + kv_head) * SLOTS
    tl.store(chosen + places, tl.where(first < own, first, -1), mask=valid)
    if SLOTS > 1:
        best = no_choice(M, SLOTS_UP)
        end = tl.max(own)
        for start in range(tl.min(first) + 1, end, N):
            blocks = start + tl.arange(0, N)
            mean = load_span(means, start, end, KV_HEADS, kv_head, N, D, WIDTH)
            between = valid[:, None] & (blocks[None, :] > first[:, None]) & (blocks[None, :] < own[:, None])
            importance = tl.zeros([M, N], tl.float32)
            for head in range(kv_head * (HEADS // KV_HEADS), (kv_head + 1) * (HEADS // KV_HEADS)):
                q_tile = load_rows(q, tokens, valid, q_heads, head, D, WIDTH)
                norm = finite(tl.load(norms + tokens.to(tl.int64) * HEADS + head))
                s = tl.dot(q_tile, tl.trans(mean), input_precision=PRECISION) * scale
                importance += tl.exp2(tl.where(between, s - norm[:, None], -float("inf")))
            best = keep_best(best, tl.where(between, rank_of(importance, blocks[None, :]), NOTHING), SLOTS - 1)
        slots = tl.arange(0, SLOTS_UP)
        there = valid[:, None] & (slots < SLOTS - 1)[None, :]
        tl.store(chosen + places[:, None] + 1 + slots[None, :], blocks_of(best), mask=there)
