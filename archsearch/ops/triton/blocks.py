"""Blocks of keys: their means, and a running choice of the best of them."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import load_rows, store_rows

NOTHING: tl.constexpr = tl.constexpr(-(2**63))
"""Below every key that `rank_of` makes."""


@triton.jit(do_not_specialize=["block_size", "x_heads"])
def mean_rows(
    x,
    starts,
    stops,
    means,
    block_size,
    x_heads,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
):
    """Means `[blocks, HEADS, D]` of the complete blocks of x `[keys, HEADS, D]`, zeros for others;
    grid (blocks, HEADS)."""
    block, head = tl.program_id(0), tl.program_id(1)
    start, stop = tl.load(starts + block), tl.load(stops + block)
    end = tl.where(stop - start == block_size, stop, start)
    total = tl.zeros([WIDTH], tl.float32)
    for first in range(start, end, N):
        keys = first + tl.arange(0, N)
        total += tl.sum(load_rows(x, keys, keys < end, x_heads, head, D, WIDTH).to(tl.float32), 0)
    row = block + tl.zeros([1], tl.int32)
    store_rows(means, (total / block_size)[None, :], row, row >= 0, HEADS, head, D, WIDTH)


@triton.jit
def rank_of(scores, blocks):
    """int64 keys in the order of the scores, of equal scores the earlier block's the higher."""
    bits = tl.where(scores == 0, 0.0, scores).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - blocks).to(tl.int64)


@triton.jit
def no_choice(M: tl.constexpr, WIDTH: tl.constexpr):
    """An empty choice `[M, WIDTH]`: keys below all others, no two of a row alike."""
    return tl.zeros([M, WIDTH], tl.int64) + (NOTHING + 1) + tl.arange(0, WIDTH)[None, :]


@triton.jit
def keep_best(best, ranks, COUNT: tl.constexpr):
    """The `COUNT` highest of the choice `best` `[M, WIDTH]` and the keys `ranks` `[M, N]`."""
    inside = tl.arange(0, best.shape[1])[None, :] < COUNT
    for _ in range(COUNT):
        highest = tl.max(ranks, 1)
        lowest = tl.min(tl.where(inside, best, 0x7FFFFFFFFFFFFFFF), 1)
        best = tl.where(inside & (best == lowest[:, None]), tl.maximum(highest, lowest)[:, None], best)
        ranks = tl.where(ranks == highest[:, None], NOTHING, ranks)
    return best


@triton.jit
def blocks_of(best):
    """The blocks of a choice, -1 where there is none."""
    block = 0x7FFFFFFF - (best & 0xFFFFFFFF)
    return tl.where(best < NOTHING + 1 + best.shape[1], -1, block).to(tl.int32)
