"""Attention over ranges: each query sees the keys from its `low` up to, not including, its `high`.

Both bounds rise with the query's token, so that a tile of queries sees one span of keys and a tile of keys one span of
queries. The window, the own block and the complete means of block-sparse attention are such ranges.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import finished, load_rows, load_span, store_rows, take_part, take_scores


@triton.jit
def _query_tile(lows, highs, T, M: tl.constexpr):
    """Tokens of this program's queries, which of them there are, and the bounds of each."""
    at = tl.program_id(0) * M + tl.arange(0, M)
    tokens = tl.program_id(2) * T + tl.minimum(at, T - 1)
    return tokens, at < T, tl.load(lows + tokens), tl.load(highs + tokens)


@triton.jit
def _spans(low, high, N: tl.constexpr):
    """First key, begin and end of the tiles of keys that all queries see, and the end of the last key."""
    first, last = tl.min(low), tl.max(high)
    whole = tl.minimum(first + tl.cdiv(tl.max(low) - first, N) * N, tl.maximum(last, first))
    broken = tl.maximum(first + (tl.min(high) - first) // N * N, whole)
    return first, whole, broken, last


@triton.jit
def _visible(keys, low, high):
    return (keys[None, :] >= low[:, None]) & (keys[None, :] < high[:, None])


@triton.jit
def _attend(
    q,
    k,
    v,
    begin,
    end,
    low,
    high,
    acc,
    top,
    total,
    scale,
    k_heads,
    v_heads,
    head,
    MASKED: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    for start in range(begin, end, N):
        keys = start + tl.arange(0, N)
        k_tile = load_span(k, start, end, k_heads, head, N, D, WIDTH)
        s = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION) * scale
        if MASKED:
            s = tl.where(_visible(keys, low, high), s, -float("inf"))
        v_tile = load_span(v, start, end, v_heads, head, N, D, WIDTH)
        acc, top, total = take_scores(s, v_tile, acc, top, total, PRECISION)
    return acc, top, total


@triton.jit(do_not_specialize=["T", "q_heads", "k_heads", "v_heads"])
def range_forward(
    q,
    k,
    v,
    lows,
    highs,
    parts,
    part_norms,
    o,
    norms,
    scale,
    T,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SLOTS: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """o `[B * T, HEADS, D]` and norms `[B * T, HEADS]`; grid (tiles of T, HEADS, B).

    The `SLOTS` finished parts of each query, `[B * T, HEADS, SLOTS, D]`, take part in the softmax.
    """
    head = tl.program_id(1)
    tokens, valid, low, high = _query_tile(lows, highs, T, M)
    q_tile = load_rows(q, tokens, valid, q_heads, head, D, WIDTH)
    first, whole, broken, last = _spans(low, high, N)
    acc = tl.zeros([M, WIDTH], tl.float32)
    top = tl.full([M], -float("inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    acc, top, total = _attend(
        q_tile,
        k,
        v,
        first,
        whole,
        low,
        high,
        acc,
        top,
        total,
        scale,
        k_heads,
        v_heads,
        head // GROUP,
        True,
        D,
        WIDTH,
        N,
        PRECISION,
    )
    acc, top, total = _attend(
        q_tile,
        k,
        v,
        whole,
        broken,
        low,
        high,
        acc,
        top,
        total,
        scale,
        k_heads,
        v_heads,
        head // GROUP,
        False,
        D,
        WIDTH,
        N,
        PRECISION,
    )
    acc, top, total = _attend(
        q_tile,
        k,
        v,
        broken,
        last,
        low,
        high,
        acc,
        top,
        total,
        scale,
        k_heads,
        v_heads,
        head // GROUP,
        True,
        D,
        WIDTH,
        N,
        PRECISION,
    )
    lanes = tokens.to(tl.int64) * HEADS + head
    for slot in tl.range(SLOTS, num_stages=1):
        norm = tl.load(part_norms + lanes * SLOTS + slot)
        part = load_rows(parts, lanes, valid & (norm != -float("inf")), SLOTS, slot, D, WIDTH)
        acc, top, total = take_part(part, norm, acc, top, total)
    out, norm = finished(acc, top, total)
    store_rows(o, out, tokens, valid, HEADS, head, D, WIDTH)
    tl.store(norms + lanes, norm, mask=valid)
