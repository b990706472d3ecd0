"""Window attention, backward: one kernel for the gradient of the queries, one for those of keys and values."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.rows import load_rows, store_rows

from .forward import SIZES
from .tiles import filled_keys, key_block, key_blocks, mask_scores, queries_end, sight

KEYS_SIZES = [*SIZES, "count", "parts", "rows"]


@triton.jit(do_not_specialize=SIZES)
def queries_backward(
    q,
    k,
    v,
    o,
    lse,
    starts,
    lengths,
    do,
    delta,
    dq,
    scale,
    T,
    S,
    heads,
    kv_heads,
    window,
    sinks,
    q_batch,
    q_step,
    k_batch,
    k_step,
    v_batch,
    v_step,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PACKED: tl.constexpr,
    RAGGED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dq `[B, T, Hq, D]`, and delta `[B, Hq, T]`, the products of o and its gradient do `[B, T, Hq, DV]`.

    The other arguments are those of `attention_forward`.
    """
    blocks = tl.cdiv(T, M)
    pid = tl.program_id(0)
    block, row = pid % blocks, (pid // blocks).to(tl.int64)
    batch, head = row // heads, (row % heads).to(tl.int32)
    kv_head = head // (heads // kv_heads)
    q += (batch * q_batch + head) * D
    k += (batch * k_batch + kv_head) * D
    v += (batch * v_batch + kv_head) * DV
    o += (batch * T * heads + head) * DV
    do += (batch * T * heads + head) * DV
    dq += (batch * T * heads + head) * D

    S = filled_keys(lengths, batch, S, RAGGED)
    member = block * M + tl.arange(0, M)
    first = block * M + (S - T)
    last = tl.minimum(first + M, S) - 1
    start, last_start = 0, 0
    if PACKED:
        start, last_start = tl.load(starts + first), tl.load(starts + last)
    query = member + (S - T)
    own, own_sinks_end, recent = sight(query, starts, window, sinks, S, PACKED)
    low, middle, right, sink_blocks, band_blocks = key_blocks(first, last, start, last_start, window, sinks, N)

    queries = load_rows(q, block * M, T, q_step, D, M, BLOCK_D)
    grads = load_rows(do, block * M, T, heads, DV, M, BLOCK_D)
    outputs = load_rows(o, block * M, T, heads, DV, M, BLOCK_D)
    products = tl.sum(outputs.to(tl.float32) * grads.to(tl.float32), 1)
    tl.store(delta + row * T + member, products, mask=member < T)
    logs = tl.load(lse + row * T + member, mask=member < T, other=0.0)
    acc = tl.zeros([M, BLOCK_D], tl.float32)
    for i in range(sink_blocks + band_blocks):
        at = key_block(i, start, low, sink_blocks, N)
        keys = load_rows(k, at, S, k_step, D, N, BLOCK_D)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale - logs[:, None]
        scores = mask_scores(scores, -1e30, at, query, own, own_sinks_end, recent, low, middle, right, N, PACKED)
        values = load_rows(v, at, S, v_step, DV, N, BLOCK_D)
        d_weights = tl.dot(grads, tl.trans(values), input_precision=PRECISION)
        d_scores = tl.exp2(scores) * (d_weights - products[:, None])
        acc = tl.dot(d_scores.to(keys.dtype), keys, acc, input_precision=PRECISION)
    store_rows(dq, acc * (scale * 0.6931471805599453), block * M, T, heads, D, M, BLOCK_D)


@triton.jit(do_not_specialize=KEYS_SIZES)
def keys_backward(
    q,
    k,
    v,
    lse,
    starts,
    ends,
    lengths,
    do,
    delta,
    dk,
    dv,
    scale,
    T,
    S,
    heads,
    kv_heads,
    window,
    sinks,
    q_batch,
    q_step,
    k_batch,
    k_step,
    v_batch,
    v_step,
    count,
    parts,
    rows,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    PACKED: tl.constexpr,
    RAGGED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dk `[parts, B, count, Hkv, D]` and dv `[..., DV]` of the first `count` keys, over all query heads of theirs.

    A part takes `rows` queries, a multiple of M; one part of all T gives the gradients themselves. ``delta`` is what
    `queries_backward` left; ``ends`` `[T]` is the token after the last of each token's sequence. RAGGED: rows after the
    ``lengths`` that a sequence has filled are not read, and have gradients of zero.
    """
    blocks = tl.cdiv(count, N)
    pid = tl.program_id(0)
    block, rest = pid % blocks, pid // blocks
    part, row = rest % parts, (rest // parts).to(tl.int64)
    batch, kv_head = row // kv_heads, (row % kv_heads).to(tl.int32)
    group = heads // kv_heads
    q += (batch * q_batch + kv_head * group) * D
    k += (batch * k_batch + kv_head) * D
    v += (batch * v_batch + kv_head) * DV
    do += (batch * T * heads + kv_head * group) * DV
    lse += (batch * heads + kv_head * group) * T
    delta += (batch * heads + kv_head * group) * T
    batches = tl.num_programs(0) // (blocks * parts * kv_heads)
    dk += ((part * batches + batch) * count * kv_heads + kv_head) * D
    dv += ((part * batches + batch) * count * kv_heads + kv_head) * DV

    S = filled_keys(lengths, batch, S, RAGGED)
    first, offset = block * N, S - T
    last = tl.minimum(first + N, S) - 1
    start, end = 0, S
    if PACKED:
        start, end = tl.load(starts + last), tl.load(ends + last)
    # queries by their row: only the last key's sequence goes on after the block
    stop = tl.where(first < start + sinks, end, tl.minimum(last + window, end)) - offset
    stop = tl.minimum(stop, (part + 1) * rows)
    begin = tl.maximum(tl.maximum(first - offset, 0) // M * M, part * rows)
    middle = tl.cdiv(tl.maximum(last - offset, 0), M) * M
    right = tl.maximum((tl.minimum(first + window, end) - offset) // M * M, middle)
    right = tl.where(start <= first, right, middle)

    keys = load_rows(k, first, S, k_step, D, N, BLOCK_D)
    values = load_rows(v, first, S, v_step, DV, N, BLOCK_D)
    keys_acc = tl.zeros([N, BLOCK_D], tl.float32)
    values_acc = tl.zeros([N, BLOCK_D], tl.float32)
    blocks = tl.cdiv(tl.maximum(stop - begin, 0), M)
    for i in range(group * blocks):
        member, at = i // blocks, begin + i % blocks * M
        queries = load_rows(q + member * D, at, T, q_step, D, M, BLOCK_D)
        grads = load_rows(do + member * DV, at, T, heads, DV, M, BLOCK_D)
        token = at + tl.arange(0, M)
        logs = tl.load(lse + member.to(tl.int64) * T + token, mask=token < T, other=0.0)
        products = tl.load(delta + member.to(tl.int64) * T + token, mask=token < T, other=0.0)
        scores = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale - logs[None, :]
        if (at < middle) | (at >= right):
            key, query = first + tl.arange(0, N), token + offset
            seen_until = queries_end(key, starts, ends, window, sinks, S, PACKED)
            visible = (query[None, :] >= key[:, None]) & (query[None, :] < seen_until[:, None])
            scores = tl.where(visible, scores, -1e30)
        weights = tl.exp2(scores)
        values_acc = tl.dot(weights.to(grads.dtype), grads, values_acc, input_precision=PRECISION)
        d_weights = tl.dot(values, tl.trans(grads), input_precision=PRECISION)
        d_scores = weights * (d_weights - products[None, :])
        keys_acc = tl.dot(d_scores.to(queries.dtype), queries, keys_acc, input_precision=PRECISION)
    store_rows(dk, keys_acc * (scale * 0.6931471805599453), first, count, kv_heads, D, N, BLOCK_D)
    store_rows(dv, values_acc, first, count, kv_heads, DV, N, BLOCK_D)
