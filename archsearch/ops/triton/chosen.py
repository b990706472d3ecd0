"""Attention over chosen blocks: the queries that chose a block, brought together, meet its keys.

A *pair* is a query's choice: pair ``(token * CHOOSERS + chooser) * SLOTS + slot``. ``order`` holds the pairs sorted by
*lane*, the key head and block ``kv_head * blocks + block``; ``bounds`` `[lanes + 1]` says where each lane begins. All
keys of a chosen block are seen: the own block, of which only a part is, is a range (`ranges`).
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import (
    add_rows,
    finished,
    finite,
    grad_of_keys,
    load_rows,
    load_span,
    store_rows,
    take_scores,
)


@triton.jit
def _pairs_of_tile(order, bounds, lane, first, SLOTS: tl.constexpr, CHOOSERS: tl.constexpr, M: tl.constexpr):
    """Pairs `[M]` of a tile, which of them there are, and the token and chooser of each."""
    places = first + tl.arange(0, M)
    valid = places < tl.load(bounds + lane + 1)
    pairs = tl.load(order + places, mask=valid, other=0)
    query = pairs // SLOTS
    return pairs, valid, query // CHOOSERS, query % CHOOSERS


@triton.jit(do_not_specialize=["lanes", "blocks", "q_heads", "k_heads", "v_heads"])
def chosen_forward(
    q,
    k,
    v,
    order,
    bounds,
    tile_lane,
    tile_first,
    starts,
    stops,
    parts,
    part_norms,
    scale,
    lanes,
    blocks,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attention of each pair to its block: parts `[pairs, D]`, part_norms `[pairs]`; grid (tiles of pairs)."""
    tile = tl.program_id(0)
    lane = tl.load(tile_lane + tile)
    if lane < lanes:
        pairs, valid, tokens, heads = _pairs_of_tile(order, bounds, lane, tl.load(tile_first + tile), SLOTS, HEADS, M)
        begin, end = tl.load(starts + lane % blocks), tl.load(stops + lane % blocks)
        q_tile = load_rows(q, tokens.to(tl.int64) * q_heads + heads, valid, 1, 0, D, WIDTH)
        acc = tl.zeros([M, WIDTH], tl.float32)
        top = tl.full([M], -float("inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        for start in range(begin, end, N):
            keys = start + tl.arange(0, N)
            k_tile = load_span(k, start, end, k_heads, lane // blocks, N, D, WIDTH)
            s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale
            s = tl.where((keys < end)[None, :], s, -float("inf"))
            v_tile = load_span(v, start, end, v_heads, lane // blocks, N, D, WIDTH)
            acc, top, total = take_scores(s, v_tile, acc, top, total, PRECISION)
        out, norm = finished(acc, top, total)
        store_rows(parts, out, pairs, valid, 1, 0, D, WIDTH)
        tl.store(part_norms + pairs, norm, mask=valid)


@triton.jit(do_not_specialize=["lanes", "blocks", "q_heads", "k_heads", "v_heads"])
def chosen_grad_query(
    q,
    k,
    v,
    order,
    bounds,
    tile_lane,
    tile_first,
    starts,
    stops,
    norms,
    g,
    inners,
    parts,
    scale,
    grad_scale,
    lanes,
    blocks,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of each pair's query by its block, parts `[pairs, D]`; grid as forward."""
    tile = tl.program_id(0)
    lane = tl.load(tile_lane + tile)
    if lane < lanes:
        pairs, valid, tokens, heads = _pairs_of_tile(order, bounds, lane, tl.load(tile_first + tile), SLOTS, HEADS, M)
        begin, end = tl.load(starts + lane % blocks), tl.load(stops + lane % blocks)
        queries = pairs // SLOTS
        q_tile = load_rows(q, tokens.to(tl.int64) * q_heads + heads, valid, 1, 0, D, WIDTH)
        g_tile = load_rows(g, queries, valid, 1, 0, D, WIDTH)
        norm = finite(tl.load(norms + queries, mask=valid, other=0.0))
        inner = tl.load(inners + queries, mask=valid, other=0.0)
        grad = tl.zeros([M, WIDTH], tl.float32)
        for start in range(begin, end, N):
            keys = start + tl.arange(0, N)
            k_tile = load_span(k, start, end, k_heads, lane // blocks, N, D, WIDTH)
            v_tile = load_span(v, start, end, v_heads, lane // blocks, N, D, WIDTH)
            s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale - norm[:, None]
            p = tl.exp2(tl.where((keys < end)[None, :], s, -float("inf")))
            ds = p * (tl.dot(g_tile, tl.trans(v_tile), input_precision=PRECISION) - inner[:, None])
            grad = tl.dot(ds.to(k_tile.dtype), k_tile, grad, input_precision=PRECISION)
        store_rows(parts, grad * grad_scale, pairs, valid, 1, 0, D, WIDTH)


@triton.jit(do_not_specialize=["blocks", "q_heads", "k_heads", "v_heads"])
def chosen_grad_keys(
    q,
    k,
    v,
    order,
    bounds,
    starts,
    stops,
    norms,
    g,
    inners,
    dk,
    dv,
    scale,
    grad_scale,
    blocks,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    CHOOSERS: tl.constexpr,
    SHARE: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds to dk, dv `[keys, KV_HEADS, D]` in float32; grid (lanes, tiles of a block).

    A chooser speaks for HEADS / CHOOSERS query heads; `SHARE`, a power of 2, holds as many.
    """
    lane = tl.program_id(0)
    kv_head, block = lane // blocks, lane % blocks
    end = tl.load(stops + block)
    keys = tl.load(starts + block) + tl.program_id(1) * N + tl.arange(0, N)
    first, last = tl.load(bounds + lane), tl.load(bounds + lane + 1)
    if (first < last) & (tl.min(keys) < end):
        k_tile = load_rows(k, keys, keys < end, k_heads, kv_head, D, WIDTH)
        v_tile = load_rows(v, keys, keys < end, v_heads, kv_head, D, WIDTH)
        dk_tile = tl.zeros([N, WIDTH], tl.float32)
        dv_tile = tl.zeros([N, WIDTH], tl.float32)
        member = tl.arange(0, M) % SHARE
        for start in range(first, last, M // SHARE):
            places = start + tl.arange(0, M) // SHARE
            valid = (places < last) & (member < HEADS // CHOOSERS)
            query = tl.load(order + places, mask=valid, other=0) // SLOTS
            tokens, heads = query // CHOOSERS, query % CHOOSERS * (HEADS // CHOOSERS) + member
            queries = tokens.to(tl.int64) * HEADS + heads
            q_tile = load_rows(q, tokens.to(tl.int64) * q_heads + heads, valid, 1, 0, D, WIDTH)
            g_tile = load_rows(g, queries, valid, 1, 0, D, WIDTH)
            norm = finite(tl.load(norms + queries, mask=valid, other=0.0))
            inner = tl.load(inners + queries, mask=valid, other=0.0)
            seen = (keys < end)[:, None] & valid[None, :]
            dk_tile, dv_tile = grad_of_keys(
                k_tile, v_tile, q_tile, g_tile, seen, norm, inner, dk_tile, dv_tile, scale, PRECISION
            )
        add_rows(dk, dk_tile * grad_scale, keys, keys < end, KV_HEADS, kv_head, D, WIDTH)
        add_rows(dv, dv_tile, keys, keys < end, KV_HEADS, kv_head, D, WIDTH)
