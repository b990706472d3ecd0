"""Attention over listed blocks: each query meets the keys of the blocks that a list names for it, up to its own place.

``chosen`` `[B * T, CHOOSERS, slots]` int32 lists blocks of `block_size` keys, tokens where that is 1, the first
`counts` `[B * T, CHOOSERS]` of each list; -1 is none. A *lead* is a key head, or a chooser where there are more of
them: it speaks for HEADS / LEADS query heads, which are the rows of a tile of SHARE, a power of 2 and 16 at least.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import finished, finite, load_rows, row_mask, row_offsets, store_rows, take_scores
from archsearch.ops.triton.parts import merged_parts


@triton.jit
def load_keys(base, keys, seen, heads, head, D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr):
    """The first DV channels of rows that are D apart, `[keys, WIDTH]`, zeros where there is nothing."""
    return tl.load(base + row_offsets(keys, heads, head, D, WIDTH), mask=row_mask(seen, DV, WIDTH), other=0.0)


@triton.jit
def heads_of(lead_tile, HEADS: tl.constexpr, LEADS: tl.constexpr, SHARE: tl.constexpr):
    """The lead of a tile, its query heads `[SHARE]`, and which of them there are."""
    tiles: tl.constexpr = (HEADS // LEADS + SHARE - 1) // SHARE
    lead = lead_tile // tiles
    member = lead_tile % tiles * SHARE + tl.arange(0, SHARE)
    return lead, lead * (HEADS // LEADS) + member, member < HEADS // LEADS


@triton.jit
def keys_of(chosen, start, end, at, block_size, N: tl.constexpr):
    """Keys `[N]` of the entries from `start` on of a list, an entry a key of its blocks, and which are seen."""
    entry = start + tl.arange(0, N)
    block = tl.load(chosen + entry // block_size, mask=entry < end, other=-1)
    keys = block * block_size + entry % block_size
    return keys, (block >= 0) & (keys <= at)


@triton.jit(
    do_not_specialize=["T", "slots", "block_size", "share", "q_heads", "k_batch", "k_heads", "v_batch", "v_heads"]
)
def listed_forward(
    q,
    k,
    v,
    positions,
    chosen,
    counts,
    o,
    norms,
    scale,
    T,
    slots,
    block_size,
    share,
    q_heads,
    k_batch,
    k_heads,
    v_batch,
    v_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    CHOOSERS: tl.constexpr,
    LEADS: tl.constexpr,
    SHARE: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """o `[B * T, HEADS, splits, DV]`, norms `[B * T, HEADS, splits]`; grid (B * T, leads and their tiles, splits).

    A split has `share` entries of a list. q `[B * T, HEADS, D]`; k, v of sequences `k_batch` and `v_batch` rows apart.
    """
    token, split = tl.program_id(0).to(tl.int64), tl.program_id(2)
    lead, heads, valid = heads_of(tl.program_id(1), HEADS, LEADS, SHARE)
    kv_head, query = lead * KV_HEADS // LEADS, token * CHOOSERS + lead * CHOOSERS // LEADS
    at = tl.load(positions + token).to(tl.int32)
    first = split * share
    end = tl.minimum(tl.load(counts + query) * block_size, first + share)
    k += token // T * k_batch * D
    v += token // T * v_batch * D
    q_tile = load_rows(q, token * q_heads + heads, valid, 1, 0, D, WIDTH)
    acc = tl.zeros([SHARE, WIDTH], tl.float32)
    top = tl.full([SHARE], -float("inf"), tl.float32)
    total = tl.zeros([SHARE], tl.float32)
    for start in range(first, end, N):
        keys, seen = keys_of(chosen + query * slots, start, end, at, block_size, N)
        k_tile = load_keys(k, keys, seen, k_heads, kv_head, D, D, WIDTH)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale
        s = tl.where(seen[None, :], s, -float("inf"))
        v_tile = load_keys(v, keys, seen, v_heads, kv_head, D, DV, WIDTH)
        acc, top, total = take_scores(s, v_tile, acc, top, total, PRECISION)
    out, norm = finished(acc, top, total)
    rows = (token * HEADS + heads) * tl.num_programs(2) + split
    store_rows(o, out, rows, valid, 1, 0, DV, WIDTH)
    tl.store(norms + rows, norm, mask=valid)


@triton.jit(do_not_specialize=["count"])
def merge_listed(
    parts,
    part_norms,
    o,
    norms,
    count,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
):
    """o `[rows, D]` and norms `[rows]` of parts `[rows, count, D]` and part_norms `[rows, count]`; grid (rows)."""
    row = tl.program_id(0).to(tl.int64)
    out, norm = merged_parts(parts, part_norms, row * count, count, D, WIDTH, M)
    d = tl.arange(0, WIDTH)[None, :]
    tl.store(o + row * D + d, out.to(o.dtype.element_ty), mask=d < D)
    tl.store(norms + row + tl.arange(0, 1), norm)


@triton.jit(do_not_specialize=["T", "slots", "block_size", "q_heads", "k_batch", "k_heads", "v_batch", "v_heads"])
def listed_grad_query(
    q,
    k,
    v,
    positions,
    chosen,
    counts,
    norms,
    g,
    inners,
    dq,
    scale,
    grad_scale,
    T,
    slots,
    block_size,
    q_heads,
    k_batch,
    k_heads,
    v_batch,
    v_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    CHOOSERS: tl.constexpr,
    LEADS: tl.constexpr,
    SHARE: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq `[B * T, HEADS, D]`; grid (B * T, leads and their tiles)."""
    token = tl.program_id(0).to(tl.int64)
    lead, heads, valid = heads_of(tl.program_id(1), HEADS, LEADS, SHARE)
    kv_head, query = lead * KV_HEADS // LEADS, token * CHOOSERS + lead * CHOOSERS // LEADS
    at, end = tl.load(positions + token).to(tl.int32), tl.load(counts + query) * block_size
    k += token // T * k_batch * D
    v += token // T * v_batch * D
    rows = token * HEADS + heads
    q_tile = load_rows(q, token * q_heads + heads, valid, 1, 0, D, WIDTH)
    g_tile = load_rows(g, rows, valid, 1, 0, D, WIDTH)
    norm = finite(tl.load(norms + rows, mask=valid, other=0.0))
    inner = tl.load(inners + rows, mask=valid, other=0.0)
    grad = tl.zeros([SHARE, WIDTH], tl.float32)
    for start in range(0, end, N):
        keys, seen = keys_of(chosen + query * slots, start, end, at, block_size, N)
        k_tile = load_keys(k, keys, seen, k_heads, kv_head, D, D, WIDTH)
        v_tile = load_keys(v, keys, seen, v_heads, kv_head, D, D, WIDTH)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale - norm[:, None]
        p = tl.exp2(tl.where(seen[None, :], s, -float("inf")))
        ds = p * (tl.dot(g_tile, tl.trans(v_tile), input_precision=PRECISION) - inner[:, None])
        grad = tl.dot(ds.to(k_tile.dtype), k_tile, grad, input_precision=PRECISION)
    store_rows(dq, grad * grad_scale, rows, valid, 1, 0, D, WIDTH)
