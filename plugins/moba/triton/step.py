"""Mixture of block attention of one token a sequence: it ranks the means, and reads the blocks that it chooses."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import load_rows
from archsearch.ops.triton.blocks import NOTHING, blocks_of, keep_best, no_choice, rank_of
from archsearch.ops.triton.parts import attend_run


@triton.jit(do_not_specialize=["block_size", "mean_batch", "mean_heads", "share"])
def rank_step(
    q,
    means,
    lengths,
    ranks,
    block_size,
    mean_batch,
    mean_heads,
    share,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SLOTS: tl.constexpr,
    SLOTS_UP: tl.constexpr,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
):
    """The best of `share` past blocks each: ranks `[B, HEADS, SPLITS, SLOTS_UP]` int64; grid (SPLITS, HEADS, B).

    Where all past blocks are taken no mean is read.
    """
    split, head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    own = (tl.load(lengths + sequence).to(tl.int32) - 1) // block_size
    lane = sequence * HEADS + head
    d = tl.arange(0, WIDTH)
    query = tl.load(q + lane * D + d, mask=d < D, other=0.0).to(tl.float32)
    best = no_choice(1, SLOTS_UP)
    end = tl.minimum(own, split * share + share)
    for start in range(split * share, end, N):
        blocks = start + tl.arange(0, N)
        read = (blocks < end) & (own > SLOTS)
        mean = load_rows(means + sequence * mean_batch * D, blocks, read, mean_heads, head // GROUP, D, WIDTH)
        scores = tl.sum(mean.to(query.dtype) * query[None, :], 1)
        found = tl.where(blocks < end, rank_of(scores, blocks), NOTHING)
        best = keep_best(best, found[None, :], SLOTS)
    slots = tl.arange(0, SLOTS_UP)[None, :]
    best = tl.where(blocks_of(best) < 0, NOTHING, best)
    tl.store(ranks + (lane * SPLITS + split) * SLOTS_UP + slots, tl.where(slots < SLOTS, best, NOTHING))


@triton.jit(do_not_specialize=["block_size", "k_batch", "k_heads", "v_batch", "v_heads", "runs"])
def attend_step(
    q,
    k,
    v,
    lengths,
    ranks,
    parts,
    part_norms,
    scale,
    block_size,
    k_batch,
    k_heads,
    v_batch,
    v_heads,
    runs,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SLOTS: tl.constexpr,
    SLOTS_UP: tl.constexpr,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
):
    """Parts `[B, HEADS, (SLOTS + 1) * runs, D]` of runs of N rows of the chosen blocks, the own the last.

    Grid ((SLOTS + 1) * runs, HEADS, B).
    """
    piece, head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    length = tl.load(lengths + sequence).to(tl.int32)
    lane = sequence * HEADS + head
    slot = piece // runs
    block = (length - 1) // block_size
    if SLOTS > 0:
        if slot < SLOTS:
            places = tl.arange(0, SPLITS * SLOTS_UP)
            found = tl.load(ranks + lane * SPLITS * SLOTS_UP + places)
            best = blocks_of(keep_best(no_choice(1, SLOTS_UP), found[None, :], SLOTS))
            block = tl.sum(tl.where(tl.arange(0, SLOTS_UP)[None, :] == slot, best, 0))
    first = block * block_size + piece % runs * N
    end = tl.where(block < 0, first, tl.minimum(block * block_size + block_size, length))
    place = lane * tl.num_programs(0) + piece
    if first < end:
        d = tl.arange(0, WIDTH)
        query = tl.load(q + lane * D + d, mask=d < D, other=0.0).to(tl.float32)
        out, top, total = attend_run(
            query,
            k + sequence * k_batch * D,
            v + sequence * v_batch * D,
            first,
            end,
            scale,
            k_heads,
            v_heads,
            head // GROUP,
            D,
            WIDTH,
            N,
        )
        tl.store(parts + place * D + d, out / total, mask=d < D)
        tl.store(part_norms + place, top + tl.log2(total))
    else:
        tl.store(part_norms + place, -float("inf"))
