"""The choice of an index: scores of blocks for a strip of queries, and the best blocks of each row of scores.

A *chooser* is a small head, or all small heads of an index together. Scores lie in a strip of memory,
`[B, strip, CHOOSERS, blocks]` float32, for so many queries at a time.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import load_rows


@triton.jit
def edges_of(at, block_size, tail, local):
    """Blocks before those that are always in at the end, for queries at the places `at` of their sequences."""
    return tl.maximum((at + tail) // block_size - local, 0)


@triton.jit
def _products(
    queries,
    weights,
    k_tile,
    tokens,
    valid,
    chooser,
    query_heads,
    HEADS: tl.constexpr,
    SUMMED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`[M, N]` of the head of a chooser, or the sum over all heads, rectified and weighted."""
    if SUMMED:
        s = tl.zeros([M, N], tl.float32)
        for head in range(HEADS):
            q_tile = load_rows(queries, tokens, valid, query_heads, head, D, WIDTH)
            hit = tl.maximum(tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION), 0.0)
            if WEIGHTED:
                weight = tl.load(weights + tokens.to(tl.int64) * HEADS + head, mask=valid, other=0.0)
                hit *= weight.to(tl.float32)[:, None]
            s += hit
    else:
        q_tile = load_rows(queries, tokens, valid, query_heads, chooser, D, WIDTH)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
    return s


@triton.jit(
    do_not_specialize=[
        "T",
        "first_token",
        "strip",
        "blocks",
        "units",
        "block_size",
        "tail",
        "local",
        "query_heads",
        "key_batch",
        "key_heads",
    ]
)
def index_scores(
    queries,
    keys,
    weights,
    positions,
    scores,
    scale,
    T,
    first_token,
    strip,
    blocks,
    units,
    block_size,
    tail,
    local,
    query_heads,
    key_batch,
    key_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    CHOOSERS: tl.constexpr,
    SUMMED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    LANES: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scores of LANES blocks for M queries, of the `units` keys of a block the best; grid (tiles of blocks, of the
    strip's queries, of choosers and sequences, in this order the fastest first).

    queries `[B, T, HEADS, D]`, keys `[B, blocks * units, KV_HEADS, D]`, weights `[B, T, HEADS]`, positions `[B * T]`
    int64. What no query of a tile may choose is neither read nor written.
    """
    program, tiles = tl.program_id(0), tl.cdiv(blocks, LANES)
    tile, rest = program % tiles, program // tiles
    rows = tl.cdiv(strip, M)
    chooser, sequence = rest // rows % CHOOSERS, (rest // rows // CHOOSERS).to(tl.int64)
    at = rest % rows * M + tl.arange(0, M)
    valid = (at < strip) & (first_token + at < T)
    tokens = sequence * T + tl.minimum(first_token + at, T - 1)
    place = tl.load(positions + tokens, mask=valid, other=-1).to(tl.int32)
    edge = tl.where(valid, edges_of(place, block_size, tail, local), 0)
    end = tl.minimum(tl.max(edge), blocks)
    if tile * LANES < end:
        lane, offset = tl.arange(0, N) // (N // LANES), tl.arange(0, N) % (N // LANES)
        block = tile * LANES + lane
        best = tl.full([M, LANES], -float("inf"), tl.float32)
        for start in range(0, units, N // LANES):
            there = (block < end) & (start + offset < units)
            row = block * units + start + offset
            k_tile = load_rows(
                keys + sequence * key_batch * D, row, there, key_heads, chooser * KV_HEADS // CHOOSERS, D, WIDTH
            )
            s = _products(
                queries,
                weights,
                k_tile,
                tokens,
                valid,
                chooser,
                query_heads,
                HEADS,
                SUMMED,
                WEIGHTED,
                D,
                WIDTH,
                M,
                N,
                PRECISION,
            )
            s = tl.where(there[None, :], s * scale, -float("inf"))
            if LANES == N:
                best = tl.maximum(best, s)
            else:
                best = tl.maximum(best, tl.max(tl.reshape(s, [M, LANES, N // LANES]), 2))
        column = tile * LANES + tl.arange(0, LANES)
        line = (sequence * strip + at) * CHOOSERS + chooser
        kept = valid[:, None] & (column < end)[None, :]
        tl.store(scores + line[:, None] * blocks + column[None, :], best, mask=kept)


@triton.jit
def _rank_of(score):
    """uint32 in the order of the scores."""
    bits = tl.where(score == 0, 0.0, score).to(tl.uint32, bitcast=True)
    return tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def _least_rank(line, low, high, room, N: tl.constexpr):
    """The rank of the `room`-th best of the scores `low` to `high` - 1 of a line, and how many of that rank are in:
    digit by digit, by counts of the ranks that agree in the digits before."""
    rank = tl.zeros([1], tl.uint32)
    digits = tl.arange(0, 256)
    for turn in tl.static_range(4):
        shift = 24 - 8 * turn
        counts = tl.zeros([256], tl.int32)
        for start in range(low, high, N):
            block = start + tl.arange(0, N)
            ranks = _rank_of(tl.load(line + block, mask=block < high, other=-float("inf")))
            alike = block < high
            if turn > 0:
                alike = alike & ((ranks >> (shift + 8)) == (rank >> (shift + 8)))
            counts += tl.histogram(((ranks >> shift) & 255).to(tl.int32), 256, mask=alike)
        above = tl.cumsum(counts, 0, reverse=True)
        digit = tl.sum((above >= room).to(tl.int32), 0) - 1
        room -= tl.sum(tl.where(digits == digit + 1, above, 0), 0)
        rank = rank | (digit.to(tl.uint32) << shift)
    return rank, room


@triton.jit(
    do_not_specialize=[
        "T",
        "first_token",
        "strip",
        "blocks",
        "slots",
        "block_size",
        "tail",
        "local",
        "first",
        "top_k",
    ]
)
def choose_best(
    scores,
    positions,
    chosen,
    counts,
    T,
    first_token,
    strip,
    blocks,
    slots,
    block_size,
    tail,
    local,
    first,
    top_k,
    CHOOSERS: tl.constexpr,
    N: tl.constexpr,
):
    """chosen `[B * T, CHOOSERS, slots]` and their counts `[B * T, CHOOSERS]`, int32; grid (B * strip * CHOOSERS).

    The own block with the `local` before it, the `first` of the sequence, then the `top_k` best of those between in
    their order, of equal scores the earlier, and -1 in the slots that are left. Where no more than `top_k` are between
    no score is read.
    """
    program = tl.program_id(0)
    chooser, at = program % CHOOSERS, program // CHOOSERS % strip
    sequence = (program // CHOOSERS // strip).to(tl.int64)
    if first_token + at < T:
        query = (sequence * T + first_token + at) * CHOOSERS + chooser
        place = tl.load(positions + query // CHOOSERS).to(tl.int32)
        edge, own = edges_of(place, block_size, tail, local), place // block_size
        chosen += query * slots
        ends, starts = tl.maximum(own + 1 - edge, 0), tl.minimum(first, edge)
        for start in range(0, ends + starts, N):
            slot = start + tl.arange(0, N)
            always = tl.where(slot < ends, edge + slot, slot - ends)
            tl.store(chosen + slot, always, mask=slot < ends + starts)
        low, high = first, tl.minimum(edge, blocks)
        count = ends + starts + tl.maximum(tl.minimum(high - low, top_k), 0)
        chosen += ends + starts
        if high - low <= top_k:
            for start in range(low, high, N):
                block = start + tl.arange(0, N)
                tl.store(chosen + block - low, block, mask=block < high)
        else:
            line = scores + ((sequence * strip + at) * CHOOSERS + chooser) * blocks
            least, room = _least_rank(line, low, high, top_k, N)
            taken, alike = 0, 0
            for start in range(low, high, N):
                block = start + tl.arange(0, N)
                ranks = _rank_of(tl.load(line + block, mask=block < high, other=-float("inf")))
                equal = (block < high) & (ranks == least)
                above = (block < high) & (ranks > least)
                into = above | (equal & (alike + tl.cumsum(equal.to(tl.int32), 0) <= room))
                tl.store(chosen + taken + tl.cumsum(into.to(tl.int32), 0) - 1, block, mask=into)
                taken += tl.sum(into.to(tl.int32), 0)
                alike += tl.sum(equal.to(tl.int32), 0)
        tl.store(counts + query, count)
        chosen -= ends + starts
        for start in range(count, slots, N):
            slot = start + tl.arange(0, N)
            tl.store(chosen + slot, -1, mask=slot < slots)
