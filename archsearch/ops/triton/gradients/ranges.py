"""Gradients of attention over ranges: of the queries, and of the keys and values."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import add_rows, finite, grad_of_keys, load_rows, load_span, store_rows
from archsearch.ops.triton.ranges import _query_tile, _spans, _visible


@triton.jit
def _grad_query(
    q,
    g,
    k,
    v,
    begin,
    end,
    low,
    high,
    norm,
    inner,
    dq,
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
        v_tile = load_span(v, start, end, v_heads, head, N, D, WIDTH)
        s = tl.dot(q, tl.trans(k_tile), input_precision=PRECISION) * scale - norm[:, None]
        if MASKED:
            s = tl.where(_visible(keys, low, high), s, -float("inf"))
        p = tl.exp2(s)
        ds = p * (tl.dot(g, tl.trans(v_tile), input_precision=PRECISION) - inner[:, None])
        dq = tl.dot(ds.to(k_tile.dtype), k_tile, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=["T", "q_heads", "k_heads", "v_heads"])
def range_grad_query(
    q,
    k,
    v,
    lows,
    highs,
    norms,
    g,
    inners,
    parts,
    dq,
    scale,
    grad_scale,
    T,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SLOTS: tl.constexpr,
    ADD: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq `[B * T, HEADS, D]` of gradients g `[B * T, HEADS, D]`; inners are the products g . o; grid as forward.

    The `SLOTS` finished parts of each query's gradient are added.
    """
    head = tl.program_id(1)
    tokens, valid, low, high = _query_tile(lows, highs, T, M)
    lanes = tokens.to(tl.int64) * HEADS + head
    q_tile = load_rows(q, tokens, valid, q_heads, head, D, WIDTH)
    g_tile = load_rows(g, tokens, valid, HEADS, head, D, WIDTH)
    norm, inner = finite(tl.load(norms + lanes)), tl.load(inners + lanes)
    first, whole, broken, last = _spans(low, high, N)
    grad = tl.zeros([M, WIDTH], tl.float32)
    grad = _grad_query(
        q_tile,
        g_tile,
        k,
        v,
        first,
        whole,
        low,
        high,
        norm,
        inner,
        grad,
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
    grad = _grad_query(
        q_tile,
        g_tile,
        k,
        v,
        whole,
        broken,
        low,
        high,
        norm,
        inner,
        grad,
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
    grad = _grad_query(
        q_tile,
        g_tile,
        k,
        v,
        broken,
        last,
        low,
        high,
        norm,
        inner,
        grad,
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
    grad *= grad_scale
    for slot in tl.range(SLOTS, num_stages=1):
        grad += load_rows(parts, lanes, valid, SLOTS, slot, D, WIDTH).to(tl.float32)
    if ADD:
        add_rows(dq, grad, tokens, valid, HEADS, head, D, WIDTH)
    else:
        store_rows(dq, grad, tokens, valid, HEADS, head, D, WIDTH)


@triton.jit(do_not_specialize=["keys_count", "q_heads", "k_heads", "v_heads"])
def range_grad_keys(
    q,
    k,
    v,
    lows,
    highs,
    begins,
    ends,
    norms,
    g,
    inners,
    dk,
    dv,
    scale,
    grad_scale,
    keys_count,
    q_heads,
    k_heads,
    v_heads,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    EACH: tl.constexpr,
    ADD: tl.constexpr,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dk, dv `[keys, HEADS / EACH, D]`, each over `EACH` query heads; grid (tiles of keys, HEADS / EACH).

    The queries from `begins` to `ends` of a tile of N keys are those that may see one of them.
    """
    tile, out = tl.program_id(0), tl.program_id(1)
    keys = tile * N + tl.arange(0, N)
    there = keys < keys_count
    kv_head = out * EACH // GROUP
    k_tile = load_rows(k, keys, there, k_heads, kv_head, D, WIDTH)
    v_tile = load_rows(v, keys, there, v_heads, kv_head, D, WIDTH)
    begin, end = tl.load(begins + tile), tl.load(ends + tile)
    dk_tile = tl.zeros([N, WIDTH], tl.float32)
    dv_tile = tl.zeros([N, WIDTH], tl.float32)
    for head in range(out * EACH, out * EACH + EACH):
        for start in range(begin, end, M):
            tokens = start + tl.arange(0, M)
            valid = tokens < end
            lanes = tokens.to(tl.int64) * HEADS + head
            low = tl.load(lows + tokens, mask=valid, other=0)
            high = tl.load(highs + tokens, mask=valid, other=0)
            seen = _visible_by(keys, low, high)
            q_tile = load_span(q, start, end, q_heads, head, M, D, WIDTH)
            g_tile = load_span(g, start, end, HEADS, head, M, D, WIDTH)
            norm = finite(tl.load(norms + lanes, mask=valid, other=0.0))
            inner = tl.load(inners + lanes, mask=valid, other=0.0)
            dk_tile, dv_tile = grad_of_keys(
                k_tile, v_tile, q_tile, g_tile, seen, norm, inner, dk_tile, dv_tile, scale, PRECISION
            )
    dk_tile *= grad_scale
    if ADD:
        add_rows(dk, dk_tile, keys, there, HEADS // EACH, out, D, WIDTH)
        add_rows(dv, dv_tile, keys, there, HEADS // EACH, out, D, WIDTH)
    else:
        store_rows(dk, dk_tile, keys, there, HEADS // EACH, out, D, WIDTH)
        store_rows(dv, dv_tile, keys, there, HEADS // EACH, out, D, WIDTH)


@triton.jit
def _visible_by(keys, low, high):
    return (keys[:, None] >= low[None, :]) & (keys[:, None] < high[None, :])
