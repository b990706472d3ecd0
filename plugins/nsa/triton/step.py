"""Native sparse attention of one token a sequence: the means, the choice among them, the rows, and their sum."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import finished, finite, load_rows, load_span, store_rows, take_scores
from archsearch.ops.triton.blocks import NOTHING, blocks_of, keep_best, no_choice, rank_of
from archsearch.ops.triton.parts import merged_parts


@triton.jit
def _members(HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SHARE: tl.constexpr):
    """Rows `[SHARE]` of this program's query heads in `[B, HEADS]`, and which of them there are."""
    member = tl.arange(0, SHARE)
    kv_head, sequence = tl.program_id(1), tl.program_id(2).to(tl.int64)
    return sequence * HEADS + kv_head * (HEADS // KV_HEADS) + member, member < HEADS // KV_HEADS


@triton.jit(do_not_specialize=["block_size", "k_batch", "k_heads", "v_batch", "v_heads", "count", "share"])
def means_step(
    q,
    k,
    v,
    lengths,
    scores,
    parts,
    part_norms,
    scale,
    block_size,
    k_batch,
    k_heads,
    v_batch,
    v_heads,
    count,
    share,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scores `[B, HEADS, count]` of the means k of complete blocks, and for each `share` of them the attention to the
    means v, parts `[B, HEADS, splits, D]`; grid (splits, KV_HEADS, B)."""
    split, kv_head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, valid = _members(HEADS, KV_HEADS, SHARE)
    q_tile = load_rows(q, rows, valid, 1, 0, D, WIDTH)
    end = tl.minimum(tl.load(lengths + sequence).to(tl.int32) // block_size, split * share + share)
    acc = tl.zeros([SHARE, WIDTH], tl.float32)
    top = tl.full([SHARE], -float("inf"), tl.float32)
    total = tl.zeros([SHARE], tl.float32)
    for start in range(split * share, end, N):
        k_tile = load_span(k + sequence * k_batch * D, start, end, k_heads, kv_head, N, D, WIDTH).to(q_tile.dtype)
        v_tile = load_span(v + sequence * v_batch * D, start, end, v_heads, kv_head, N, D, WIDTH).to(q_tile.dtype)
        blocks = start + tl.arange(0, N)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale
        tl.store(scores + rows[:, None] * count + blocks[None, :], s, mask=valid[:, None] & (blocks < end)[None, :])
        s = tl.where((blocks < end)[None, :], s, -float("inf"))
        acc, top, total = take_scores(s, v_tile, acc, top, total, PRECISION)
    out, norm = finished(acc, top, total)
    places = rows * tl.num_programs(0) + split
    store_rows(parts, out, places, valid, 1, 0, D, WIDTH)
    tl.store(part_norms + places, norm, mask=valid)


@triton.jit(do_not_specialize=["block_size", "count", "share"])
def choose_step(
    scores,
    part_norms,
    lengths,
    ranks,
    block_size,
    count,
    share,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    BEST: tl.constexpr,
    BEST_UP: tl.constexpr,
    SPLITS: tl.constexpr,
    N: tl.constexpr,
):
    """The best of `share` blocks each between the first and the own: ranks `[B, KV_HEADS, SPLITS, BEST_UP]` int64;
    grid (SPLITS, KV_HEADS, B)."""
    split, kv_head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, valid = _members(HEADS, KV_HEADS, SHARE)
    splits = tl.arange(0, SPLITS)
    norms = tl.load(part_norms + rows[:, None] * SPLITS + splits[None, :], mask=valid[:, None], other=-float("inf"))
    top = finite(tl.max(norms, 1))
    total = tl.sum(tl.exp2(norms - top[:, None]), 1)
    own = (tl.load(lengths + sequence).to(tl.int32) - 1) // block_size
    end = tl.minimum(own, split * share + share)
    best = no_choice(1, BEST_UP)
    for start in range(tl.maximum(split * share, 1), end, N):
        blocks = start + tl.arange(0, N)
        there = valid[:, None] & (blocks < end)[None, :]
        s = tl.load(scores + rows[:, None] * count + blocks[None, :], mask=there, other=-float("inf"))
        p = tl.exp2(s - top[:, None]) / tl.where(total > 0, total, 1.0)[:, None]
        found = tl.where(blocks < end, rank_of(tl.sum(p, 0), blocks), NOTHING)
        best = keep_best(best, found[None, :], BEST)
    slots = tl.arange(0, BEST_UP)[None, :]
    place = (sequence * KV_HEADS + kv_head) * SPLITS + split
    kept = (slots < BEST) & (blocks_of(best) >= 0)
    tl.store(ranks + place * BEST_UP + slots, tl.where(kept, best, NOTHING))


@triton.jit
def _run_of(
    piece,
    ranks,
    place,
    length,
    block_size,
    window,
    runs,
    TOP: tl.constexpr,
    BEST: tl.constexpr,
    BEST_UP: tl.constexpr,
    SPLITS: tl.constexpr,
    N: tl.constexpr,
):
    """First row of a piece and the end of its rows: `runs` pieces a chosen block, then the window's."""
    slot, own = piece // runs, (length - 1) // block_size
    block = tl.where(slot == BEST, tl.where(own > 0, 0, -1), own)
    if TOP == 1:
        block = own
    if BEST > 0:
        if slot < BEST:
            places = tl.arange(0, SPLITS * BEST_UP)
            found = tl.load(ranks + place * SPLITS * BEST_UP + places)
            best = blocks_of(keep_best(no_choice(1, BEST_UP), found[None, :], BEST))
            block = tl.sum(tl.where(tl.arange(0, BEST_UP)[None, :] == slot, best, 0))
    begin = tl.where(slot < TOP, block * block_size, tl.maximum(length - window, 0))
    first = begin + tl.where(slot < TOP, piece % runs, piece - TOP * runs) * N
    end = tl.where(slot < TOP, tl.minimum(begin + block_size, length), length)
    return first, tl.where((slot < TOP) & (block < 0), first, end)


@triton.jit(do_not_specialize=["block_size", "window", "k_batch", "k_heads", "v_batch", "v_heads", "runs"])
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
    window,
    k_batch,
    k_heads,
    v_batch,
    v_heads,
    runs,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    TOP: tl.constexpr,
    BEST: tl.constexpr,
    BEST_UP: tl.constexpr,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Parts `[B, HEADS, pieces, D]` of runs of N rows of the `TOP` chosen blocks, `runs` each, and of the window;
    grid (pieces, KV_HEADS, B)."""
    piece, kv_head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, valid = _members(HEADS, KV_HEADS, SHARE)
    length = tl.load(lengths + sequence).to(tl.int32)
    first, end = _run_of(
        piece, ranks, sequence * KV_HEADS + kv_head, length, block_size, window, runs, TOP, BEST, BEST_UP, SPLITS, N
    )
    places = rows * tl.num_programs(0) + piece
    if first < end:
        q_tile = load_rows(q, rows, valid, 1, 0, D, WIDTH)
        k_tile = load_span(k + sequence * k_batch * D, first, end, k_heads, kv_head, N, D, WIDTH).to(q_tile.dtype)
        v_tile = load_span(v + sequence * v_batch * D, first, end, v_heads, kv_head, N, D, WIDTH).to(q_tile.dtype)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale
        s = tl.where((first + tl.arange(0, N) < end)[None, :], s, -float("inf"))
        acc = tl.zeros([SHARE, WIDTH], tl.float32)
        top = tl.full([SHARE], -float("inf"), tl.float32)
        total = tl.zeros([SHARE], tl.float32)
        acc, top, total = take_scores(s, v_tile, acc, top, total, PRECISION)
        out, norm = finished(acc, top, total)
        store_rows(parts, out, places, valid, 1, 0, D, WIDTH)
        tl.store(part_norms + places, norm, mask=valid)
    else:
        tl.store(part_norms + places, tl.full([SHARE], -float("inf"), tl.float32), mask=valid)


@triton.jit(do_not_specialize=["chosen_pieces", "pieces"])
def merge_step(
    mean_parts,
    mean_norms,
    parts,
    part_norms,
    gates,
    o,
    chosen_pieces,
    pieces,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
):
    """o `[rows, D]`: the sum by gates `[rows, 3]` of the means' parts, those of chosen blocks, and the others;
    grid (rows)."""
    row = tl.program_id(0).to(tl.int64)
    compressed, _ = merged_parts(mean_parts, mean_norms, row * SPLITS, SPLITS, D, WIDTH, M)
    selected, _ = merged_parts(parts, part_norms, row * pieces, chosen_pieces, D, WIDTH, M)
    local, _ = merged_parts(parts, part_norms, row * pieces + chosen_pieces, pieces - chosen_pieces, D, WIDTH, M)
    out = tl.load(gates + row * 3).to(tl.float32) * compressed
    out += tl.load(gates + row * 3 + 1).to(tl.float32) * selected
    out += tl.load(gates + row * 3 + 2).to(tl.float32) * local
    d = tl.arange(0, WIDTH)[None, :]
    tl.store(o + row * D + d, out.to(o.dtype.element_ty), mask=d < D)
