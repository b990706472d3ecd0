"""Attention of one token and key head, the rows its query heads, over the blocks that they chose and the own."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import add_rows, finished, finite, load_rows, load_span, store_rows, take_scores


@triton.jit
def _keys_of(
    turn,
    chosen,
    starts,
    stops,
    place,
    own,
    at,
    block_size,
    SLOTS: tl.constexpr,
    N: tl.constexpr,
):
    """First key of a turn, and the one after the last of its block that is seen: `cdiv(block_size, N)` turns a block,
    those of the own last."""
    turns = tl.cdiv(block_size, N)
    slot = turn // turns
    block = tl.load(chosen + place * SLOTS + slot, mask=slot < SLOTS, other=0)
    block = tl.where(slot < SLOTS, block, own)
    start = tl.load(starts + tl.maximum(block, 0))
    end = tl.where(block < 0, start, tl.minimum(tl.load(stops + tl.maximum(block, 0)), at + 1))
    return start + turn % turns * N, end


@triton.jit(do_not_specialize=["block_size", "q_heads", "k_heads", "v_heads"])
def selection_forward(
    q,
    k,
    v,
    chosen,
    starts,
    stops,
    owns,
    ats,
    o,
    norms,
    scale,
    block_size,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    SHARE: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """o `[B * T, HEADS, D]`, norms `[B * T, HEADS]`; chosen `[B * T, KV_HEADS, SLOTS]`; grid (B * T, KV_HEADS).

    `SHARE`, a power of 2 and 16 at least, holds the query heads of a key head.
    """
    token, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.arange(0, SHARE)
    valid = member < HEADS // KV_HEADS
    heads = kv_head * (HEADS // KV_HEADS) + member
    own, at = tl.load(owns + token), tl.load(ats + token)
    q_tile = load_rows(q, token * q_heads + heads, valid, 1, 0, D, WIDTH)
    acc = tl.zeros([SHARE, WIDTH], tl.float32)
    top = tl.full([SHARE], -float("inf"), tl.float32)
    total = tl.zeros([SHARE], tl.float32)
    for turn in range((SLOTS + 1) * tl.cdiv(block_size, N)):
        start, end = _keys_of(turn, chosen, starts, stops, token * KV_HEADS + kv_head, own, at, block_size, SLOTS, N)
        k_tile = load_span(k, start, end, k_heads, kv_head, N, D, WIDTH)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale
        s = tl.where((start + tl.arange(0, N) < end)[None, :], s, -float("inf"))
        v_tile = load_span(v, start, end, v_heads, kv_head, N, D, WIDTH)
        acc, top, total = take_scores(s, v_tile, acc, top, total, PRECISION)
    out, norm = finished(acc, top, total)
    store_rows(o, out, token * HEADS + heads, valid, 1, 0, D, WIDTH)
    tl.store(norms + token * HEADS + heads, norm, mask=valid)


@triton.jit(do_not_specialize=["block_size", "q_heads", "k_heads", "v_heads"])
def selection_grad_query(
    q,
    k,
    v,
    chosen,
    starts,
    stops,
    owns,
    ats,
    norms,
    g,
    inners,
    dq,
    scale,
    grad_scale,
    block_size,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SLOTS: tl.constexpr,
    SHARE: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds to dq `[B * T, HEADS, D]` float32; grid as forward."""
    token, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.arange(0, SHARE)
    valid = member < HEADS // KV_HEADS
    heads = kv_head * (HEADS // KV_HEADS) + member
    rows = token * HEADS + heads
    own, at = tl.load(owns + token), tl.load(ats + token)
    q_tile = load_rows(q, token * q_heads + heads, valid, 1, 0, D, WIDTH)
    g_tile = load_rows(g, rows, valid, 1, 0, D, WIDTH)
    norm = finite(tl.load(norms + rows, mask=valid, other=0.0))
    inner = tl.load(inners + rows, mask=valid, other=0.0)
    grad = tl.zeros([SHARE, WIDTH], tl.float32)
    for turn in range((SLOTS + 1) * tl.cdiv(block_size, N)):
        start, end = _keys_of(turn, chosen, starts, stops, token * KV_HEADS + kv_head, own, at, block_size, SLOTS, N)
        k_tile = load_span(k, start, end, k_heads, kv_head, N, D, WIDTH)
        v_tile = load_span(v, start, end, v_heads, kv_head, N, D, WIDTH)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale - norm[:, None]
        p = tl.exp2(tl.where((start + tl.arange(0, N) < end)[None, :], s, -float("inf")))
        ds = p * (tl.dot(g_tile, tl.trans(v_tile), input_precision=PRECISION) - inner[:, None])
        grad = tl.dot(ds.to(k_tile.dtype), k_tile, grad, input_precision=PRECISION)
    add_rows(dq, grad * grad_scale, rows, valid, 1, 0, D, WIDTH)
