"""Gradients within a chunk: of its scores, of its triangular system, and of the inputs."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .decays import (
    channel_gates,
    from_start,
    from_start_before,
    gates_before,
    head_gates,
    meeting,
    meeting_gradient,
    spans,
    spans_before,
    sums,
    to_end,
)
from .places import chunk_tokens


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV", "gate_stride"])
def d_scores(
    q,
    k,
    log_decay,
    scores,
    writes,
    d_o,
    starts,
    ends,
    d_writes,
    d_weights,
    d_gates,
    scale,
    T,
    chunks,
    H,
    HV,
    gate_stride,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes what the outputs of a chunk say of its scores and writes.

    d_writes `[N, HV, V]`, the scores transposed times d_o; d_weights `[N, HV, C]`, for key j and query i the gradient
    of scale q_i k_j, times their decay unless gates are by channel; with gates by head their gradient so far, d_gates
    float32 `[N, HV]`.
    """
    chunk, head = tl.program_id(0), tl.program_id(1)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row, shared = first * HV + head, first * H + head // (HV // H)
    kept = i[None, :] >= i[:, None]
    weights = tl.zeros([C, C], dtype=tl.float32)
    if DECAY == "channel":
        at = scores + row * C + i[None, :] * (HV * C) + i[:, None]
        weights += tl.load(at, mask=live[None, :], other=0.0)
    else:
        for begin_k in range(0, K, BK):
            c = begin_k + tl.arange(0, BK)
            inside = live[:, None] & (c < K)[None, :]
            cells = i[:, None] * (H * K) + c[None, :]
            key = tl.load(k + shared * K + cells, mask=inside, other=0.0)
            query = tl.load(q + shared * K + cells, mask=inside, other=0.0)
            weights = tl.dot(key, tl.trans(query), weights, input_precision=PRECISION)
        weights *= scale
    if DECAY == "head":
        gates, _ = head_gates(log_decay, first, count, gate_stride, head, C)
        decay = spans(gates, C, 1)
        weights *= decay
    weights = tl.where(kept, weights, 0.0)
    d_weight = tl.zeros([C, C], dtype=tl.float32)
    for begin_v in range(0, V, BV):
        x = begin_v + tl.arange(0, BV)
        inside = live[:, None] & (x < V)[None, :]
        cells = i[:, None] * (HV * V) + x[None, :]
        d_out = tl.load(d_o + row * V + cells, mask=inside, other=0.0)
        written = tl.load(writes + row * V + cells, mask=inside, other=0.0)
        d_write = tl.dot(weights.to(d_out.dtype), d_out, input_precision=PRECISION)
        tl.store(d_writes + row * V + cells, d_write.to(d_writes.dtype.element_ty), mask=inside)
        d_weight = tl.dot(written, tl.trans(d_out), d_weight, input_precision=PRECISION)
    if DECAY == "head":
        crossing = tl.where(i[None, :] > i[:, None], d_weight * weights, 0.0)
        crossing = tl.where(i[None, :] > i[:, None], tl.cumsum(crossing, 1, reverse=True), 0.0)
        tl.store(d_gates + row + i * HV, tl.sum(crossing, 0), mask=live)
        d_weight *= decay
    d_weight = tl.where(kept, d_weight, 0.0)
    at = d_weights + row * C + i[:, None] * (HV * C) + i[None, :]
    tl.store(at, d_weight.to(d_weights.dtype.element_ty), mask=live[:, None])


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV", "gate_stride"])
def d_solve(
    k,
    v,
    log_decay,
    taken,
    inverses,
    writes,
    starts,
    ends,
    d_writes,
    d_v,
    d_overlaps,
    d_taken,
    d_gates,
    T,
    chunks,
    H,
    HV,
    gate_stride,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """From the gradient of each write, in place, that of the right-hand side of its system, `d_writes` `[N, HV, V]`.

    Writes d_v; d_overlaps `[N, HV, C]`, the gradient of beta_i k_i k_j over beta_i for query i and key j, READ: of
    r_i k_j, times their decay with gates by head; and, float32 `[N, HV]`, the values' part of d_taken unless READ, and
    with gates by head the overlaps' of d_gates.
    """
    chunk, head = tl.program_id(0), tl.program_id(1)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row, shared = first * HV + head, first * H + head // (HV // H)
    at = inverses + row * C + i[None, :] * (HV * C) + i[:, None]
    inverse = tl.load(at, mask=live[None, :], other=0.0)
    rate = tl.full([C], 1.0, dtype=tl.float32)
    if not READ:
        rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
    d_rate = tl.zeros([C], dtype=tl.float32)
    d_overlap = tl.zeros([C, C], dtype=tl.float32)
    for begin_v in range(0, V, BV):
        x = begin_v + tl.arange(0, BV)
        inside = live[:, None] & (x < V)[None, :]
        cells = i[:, None] * (HV * V) + x[None, :]
        d_write = tl.load(d_writes + row * V + cells, mask=inside, other=0.0)
        d_right = tl.dot(inverse, d_write, input_precision=PRECISION)
        tl.store(d_writes + row * V + cells, d_right.to(d_write.dtype), mask=inside)
        if READ:
            tl.store(d_v + row * V + cells, d_right.to(d_v.dtype.element_ty), mask=inside)
        else:
            tl.store(d_v + row * V + cells, (d_right * rate[:, None]).to(d_v.dtype.element_ty), mask=inside)
            value = tl.load(v + row * V + cells, mask=inside, other=0.0)
            d_rate += tl.sum(value * d_right, 1)
        written = tl.load(writes + row * V + cells, mask=inside, other=0.0)
        d_overlap = tl.dot(d_right.to(written.dtype), tl.trans(written), d_overlap, input_precision=PRECISION)
    if not READ:
        tl.store(d_taken + row + i * HV, d_rate, mask=live)
    later = i[:, None] > i[None, :]
    d_overlap = tl.where(later, -d_overlap, 0.0)
    if DECAY == "head":
        if EARLY:
            d_overlap *= spans_before(gates_before(log_decay, first, count, gate_stride, head, C), C)
        else:
            gates, _ = head_gates(log_decay, first, count, gate_stride, head, C)
            d_overlap *= spans(gates, C, 0)
        products = tl.zeros([C, C], dtype=tl.float32)
        for begin_k in range(0, K, BK):
            c = begin_k + tl.arange(0, BK)
            cells = i[:, None] * (H * K) + c[None, :]
            inside = live[:, None] & (c < K)[None, :]
            key = tl.load(k + shared * K + cells, mask=inside, other=0.0)
            read = key
            if READ:
                read = tl.load(taken + row * K + i[:, None] * (HV * K) + c[None, :], mask=inside, other=0.0)
            products = tl.dot(read, tl.trans(key), products, input_precision=PRECISION)
        if EARLY:
            crossing = sums(i[:, None] < i[None, :], d_overlap * products, inverse, 1)
        elif READ:
            crossing = tl.cumsum(d_overlap * products, 0, reverse=True)
        else:
            crossing = tl.cumsum(d_overlap * products * rate[:, None], 0, reverse=True)
        crossing = tl.sum(tl.where(later, crossing, 0.0), 1)
        tl.store(d_gates + row + i * HV, crossing, mask=live)
    at = d_overlaps + row * C + i[:, None] * (HV * C) + i[None, :]
    tl.store(at, d_overlap.to(d_overlaps.dtype.element_ty), mask=live[:, None])


@triton.jit
def _met(at, live, mask):
    """Of a chunk's pairs `[C, C]` those that meet at a level, zeros for others; `mask` is where its ones and zeros are.

    Whole rows are loaded: where pairs were left out, numbers would be loaded one by one.
    """
    return tl.load(at, mask=live, other=0.0) * tl.load(mask)


@triton.jit(do_not_specialize=["N", "T", "chunks", "H", "HV", "gate_stride"])
def d_inputs(
    q,
    k,
    log_decay,
    taken,
    masks,
    befores,
    d_afters,
    writes,
    d_writes,
    d_o,
    d_weights,
    d_overlaps,
    starts,
    ends,
    d_q,
    d_k,
    d_gates,
    d_taken,
    scale,
    N,
    T,
    chunks,
    H,
    HV,
    gate_stride,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    LEVELS: tl.constexpr,
    DELTA: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes for each value head d_q and d_k `[N, HV, K]`, in float32 d_gates (by channel `[N, HV, K]`, by head the
    share of each of the program's key channels `[K / BK, N, HV]`) and such shares of d_taken, READ: all of it as d_k.
    C = 2^LEVELS; by channel `masks` are those of `level_masks`."""
    chunk, block, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row, shared = first * HV + head, first * H + head // (HV // H)
    c = block * BK + tl.arange(0, BK)
    inside = live[:, None] & (c < K)[None, :]
    here = (chunk.to(tl.int64) * HV + head) * K * V
    d_query = tl.zeros([C, BK], dtype=tl.float32)
    d_key = tl.zeros([C, BK], dtype=tl.float32)
    d_strong = tl.zeros([C, BK], dtype=tl.float32)
    through = tl.zeros([BK], dtype=tl.float32)
    for begin_v in range(0, V, BV):
        x = begin_v + tl.arange(0, BV)
        tile = c[None, :] * V + x[:, None]
        is_cell = (c < K)[None, :] & (x < V)[:, None]
        state = tl.load(befores + here + tile, mask=is_cell, other=0.0)
        d_state = tl.load(d_afters + here + tile, mask=is_cell, other=0.0)
        cells = i[:, None] * (HV * V) + x[None, :]
        values = live[:, None] & (x < V)[None, :]
        d_out = tl.load(d_o + row * V + cells, mask=values, other=0.0)
        d_query = tl.dot(d_out, state, d_query, input_precision=PRECISION)
        written = tl.load(writes + row * V + cells, mask=values, other=0.0)
        d_key = tl.dot(written, d_state, d_key, input_precision=PRECISION)
        if DELTA:
            d_write = tl.load(d_writes + row * V + cells, mask=values, other=0.0)
            d_strong = tl.dot(d_write, state, d_strong, input_precision=PRECISION)
        if DECAY != "none":
            through += tl.sum(state.to(tl.float32) * d_state.to(tl.float32), 0)

    cells = i[:, None] * (H * K) + c[None, :]
    query = tl.load(q + shared * K + cells, mask=inside, other=0.0)
    key = tl.load(k + shared * K + cells, mask=inside, other=0.0)
    if DECAY == "channel":
        gates = channel_gates(log_decay, first, count, HV, head, c, K, C)
        before = from_start(gates, key, C)
        d_query *= before * scale
        if EARLY:
            d_strong *= -from_start_before(gates, key, C)
        else:
            d_strong *= -before
        d_key *= to_end(gates, key, C)
        through *= tl.exp(tl.sum(gates, 0))
    else:
        d_query *= scale
        d_strong = -d_strong
    if DECAY == "head":
        gates, nexts = head_gates(log_decay, first, count, gate_stride, head, C)
        before = tl.exp(tl.cumsum(gates, 0))[:, None]
        d_query *= before
        if EARLY:
            ahead = gates_before(log_decay, first, count, gate_stride, head, C)
            d_strong *= tl.exp(tl.cumsum(ahead, 0))[:, None]
        else:
            d_strong *= before
        d_key *= tl.exp(tl.cumsum(nexts, 0, reverse=True))[:, None]
        through *= tl.exp(tl.sum(gates, 0))
    rate = tl.zeros([C], dtype=tl.float32)
    d_rate = tl.zeros([C], dtype=tl.float32)
    read = key
    if READ:
        read = tl.load(taken + row * K + i[:, None] * (HV * K) + c[None, :], mask=inside, other=0.0)
    elif DELTA:
        rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
        d_rate = tl.sum(key * d_strong, 1)
        d_strong *= rate[:, None]
    if DECAY != "none":
        upward = query * d_query
        if not EARLY:
            upward += read * d_strong
        downward = key * d_key
        if DECAY == "head":
            rise, fall = tl.sum(upward, 1), tl.sum(downward, 1)
            past = tl.where(i[:, None] > i[None, :], fall[None, :], 0.0)
            d_gate = tl.cumsum(rise, 0, reverse=True) + tl.sum(past, 1) + tl.sum(through, 0)
        else:
            d_gate = sums(i[:, None] <= i[None, :], upward, key, 1) + sums(i[:, None] > i[None, :], downward, key, 1)
            d_gate += through[None, :]
        if EARLY:
            if DECAY == "head":
                rise = tl.sum(read * d_strong, 1)
                d_gate += tl.sum(tl.where(i[:, None] < i[None, :], rise[None, :], 0.0), 1)
            else:
                d_gate += sums(i[:, None] < i[None, :], read * d_strong, key, 1)
    if not READ:
        d_key += d_strong

    across = i[:, None] * (HV * C) + i[None, :]
    along = i[None, :] * (HV * C) + i[:, None]
    if DECAY == "channel":
        own = tl.load(d_weights + row * C + i * (HV * C + 1), mask=live, other=0.0) * scale
        d_query += own[:, None] * key
        d_key += own[:, None] * query
        tile, turned = i[:, None] * C + i[None, :], i[None, :] * C + i[:, None]
        for level in tl.range(0, LEVELS, num_stages=1, disable_licm=True):
            met_by = masks + (LEVELS + level) * C * C
            decay = meeting(gates, masks, level, C)
            near_query = (query * decay).to(query.dtype)
            near_key = (key * decay).to(key.dtype)
            if READ:
                early = meeting(gates, masks + 2 * LEVELS * C * C, level, C) if EARLY else decay
                near_read = (read * early).to(key.dtype)
                met = _met(d_overlaps + row * C + across, live[:, None], met_by + tile)
                d_pull = tl.dot(met, near_key, input_precision=PRECISION)
                d_strong += d_pull * early
                if EARLY:
                    d_gate += meeting_gradient(d_pull * near_read, masks + 2 * LEVELS * C * C, level, C)
            met = _met(d_weights + row * C + along, live[None, :], met_by + tile)
            d_near = tl.dot(met, near_key, input_precision=PRECISION) * scale
            d_query += d_near * decay
            d_sums = d_near * near_query
            if READ and not EARLY:
                d_sums += d_pull * near_read
            met = _met(d_weights + row * C + across, live[:, None], met_by + turned)
            d_near = tl.dot(met, near_query, input_precision=PRECISION) * scale
            if READ:
                met = _met(d_overlaps + row * C + along, live[None, :], met_by + turned)
                d_near = tl.dot(met, near_read, d_near, input_precision=PRECISION)
            elif DELTA:
                met = _met(d_overlaps + row * C + along, live[None, :], met_by + turned)
                met = (met * rate[None, :]).to(key.dtype)
                d_near = tl.dot(met, near_key, d_near, input_precision=PRECISION)
                met = _met(d_overlaps + row * C + across, live[:, None], met_by + tile)
                d_pull = tl.dot(met, near_key, input_precision=PRECISION)
                d_rate += tl.sum(d_pull * near_key, 1)
                d_near += d_pull * rate[:, None]
            d_key += d_near * decay
            d_gate += meeting_gradient(d_sums + d_near * near_key, masks, level, C)
    else:
        by_key = tl.load(d_weights + row * C + across, mask=live[:, None], other=0.0)
        by_query = tl.load(d_weights + row * C + along, mask=live[None, :], other=0.0)
        d_query += tl.dot(by_query, key, input_precision=PRECISION) * scale
        d_key += tl.dot(by_key, query, input_precision=PRECISION) * scale
        if READ:
            pulls = tl.load(d_overlaps + row * C + across, mask=live[:, None], other=0.0)
            pushes = tl.load(d_overlaps + row * C + along, mask=live[None, :], other=0.0)
            d_strong = tl.dot(pulls, key, d_strong, input_precision=PRECISION)
            d_key = tl.dot(pushes, read, d_key, input_precision=PRECISION)
        elif DELTA:
            pulls = tl.load(d_overlaps + row * C + across, mask=live[:, None], other=0.0)
            pushes = tl.load(d_overlaps + row * C + along, mask=live[None, :], other=0.0)
            pushes = (pushes * rate[None, :]).to(pushes.dtype)
            d_pull = tl.dot(pulls, key, input_precision=PRECISION)
            d_rate += tl.sum(d_pull * key, 1)
            d_key += d_pull * rate[:, None]
            d_key = tl.dot(pushes, key, d_key, input_precision=PRECISION)

    cells = i[:, None] * (HV * K) + c[None, :]
    tl.store(d_q + row * K + cells, d_query.to(d_q.dtype.element_ty), mask=inside)
    tl.store(d_k + row * K + cells, d_key.to(d_k.dtype.element_ty), mask=inside)
    share = (block.to(tl.int64) * N + first) * HV + head
    if READ:
        tl.store(d_taken + row * K + cells, d_strong.to(d_taken.dtype.element_ty), mask=inside)
    elif DELTA:
        tl.store(d_taken + share + i * HV, d_rate, mask=live)
    if DECAY == "head":
        tl.store(d_gates + share + i * HV, d_gate, mask=live)
    if DECAY == "channel":
        tl.store(d_gates + row * K + cells, d_gate, mask=inside)
