"""Gradients of the keys and values that lists name (`archsearch.ops.triton.listed`): by block, of those that chose it.

No two programs write the same row, so that nothing is added atomically and every run gives the same numbers.
"""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import finite, grad_of_keys, load_rows, store_rows


@triton.jit(
    do_not_specialize=[
        "S",
        "blocks",
        "sequence_blocks",
        "block_size",
        "slots",
        "q_heads",
        "k_batch",
        "k_heads",
        "v_batch",
        "v_heads",
    ]
)
def listed_grad_keys(
    q,
    k,
    v,
    positions,
    order,
    bounds,
    norms,
    g,
    inners,
    dk,
    dv,
    scale,
    grad_scale,
    S,
    blocks,
    sequence_blocks,
    block_size,
    slots,
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
    M: tl.constexpr,
    N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dk, dv `[B, S, KV_HEADS, D]`; grid (lanes, tiles of a block, key heads of a lane).

    A lane is a block of a sequence and a chooser or key head, whichever are fewer; `order` holds the choices
    ``(token * CHOOSERS + chooser) * slots + slot`` sorted by lane, `bounds` `[lanes + 1]` where each lane begins. A
    tile of M has SHARE query heads, at most M, of a choice.
    """
    each: tl.constexpr = HEADS // LEADS
    lane, sequence = tl.program_id(0), (tl.program_id(0) % blocks // sequence_blocks).to(tl.int64)
    kv_head = lane // blocks * tl.num_programs(2) + tl.program_id(2)
    offsets = tl.program_id(1) * N + tl.arange(0, N)
    keys = lane % blocks % sequence_blocks * block_size + offsets
    there = (offsets < block_size) & (keys < S)
    first, last = tl.load(bounds + lane), tl.load(bounds + lane + 1)
    met = tl.zeros([N], tl.int32)
    dk_tile = tl.zeros([N, WIDTH], tl.float32)
    dv_tile = tl.zeros([N, WIDTH], tl.float32)
    if first < last:
        k_tile = load_rows(k + sequence * k_batch * D, keys, there, k_heads, kv_head, D, WIDTH)
        v_tile = load_rows(v + sequence * v_batch * D, keys, there, v_heads, kv_head, D, WIDTH)
        turns = (each + SHARE - 1) // SHARE
        for turn in range(tl.cdiv(last - first, M // SHARE) * turns):
            places = first + turn // turns * (M // SHARE) + tl.arange(0, M) // SHARE
            member = turn % turns * SHARE + tl.arange(0, M) % SHARE
            valid = (places < last) & (member < each)
            query = tl.load(order + places, mask=valid, other=0) // slots
            tokens = (query // CHOOSERS).to(tl.int64)
            lead = query % CHOOSERS
            if CHOOSERS < KV_HEADS:
                lead = kv_head + lead * 0
            heads = lead * each + member
            queries = tokens * HEADS + heads
            at = tl.load(positions + tokens, mask=valid, other=-1).to(tl.int32)
            q_tile = load_rows(q, tokens * q_heads + heads, valid, 1, 0, D, WIDTH)
            g_tile = load_rows(g, queries, valid, 1, 0, D, WIDTH)
            norm = finite(tl.load(norms + queries, mask=valid, other=0.0))
            inner = tl.load(inners + queries, mask=valid, other=0.0)
            seen = there[:, None] & valid[None, :] & (keys[:, None] <= at[None, :])
            met = tl.maximum(met, tl.max(seen.to(tl.int32), 1))
            dk_tile, dv_tile = grad_of_keys(
                k_tile, v_tile, q_tile, g_tile, seen, norm, inner, dk_tile, dv_tile, scale, PRECISION
            )
    # a row that no query saw may hold NaN, and a product with it is no zero
    dk_tile = tl.where((met > 0)[:, None], dk_tile * grad_scale, 0.0)
    dv_tile = tl.where((met > 0)[:, None], dv_tile, 0.0)
    rows = sequence * S + keys
    store_rows(dk, dk_tile, rows, there, KV_HEADS, kv_head, D, WIDTH)
    store_rows(dv, dv_tile, rows, there, KV_HEADS, kv_head, D, WIDTH)
