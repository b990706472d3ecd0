"""Fused: the pass over chunks that keeps a head's state on chip, reads it for the outputs and writes it nowhere."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .decays import gates_before, head_gates, spans, spans_before
from .places import chunk_tokens, segment_chunks


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV", "gate_stride"])
def head_scores(
    q,
    k,
    log_decay,
    taken,
    starts,
    ends,
    scores,
    overlaps,
    scale,
    T,
    chunks,
    H,
    HV,
    gate_stride,
    K: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    DELTA: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes scale q_i k_j exp(span), j <= i, in k's dtype, and for the delta rule what `head_overlaps` writes: both
    `[N, HV, C]`; gates by head or none."""
    chunk, head = tl.program_id(0), tl.program_id(1)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row, shared = first * HV + head, first * H + head // (HV // H)
    seen = tl.zeros([C, C], dtype=tl.float32)
    overlap = tl.zeros([C, C], dtype=tl.float32)
    for begin_k in range(0, K, BK):
        c = begin_k + tl.arange(0, BK)
        inside = live[:, None] & (c < K)[None, :]
        cells = i[:, None] * (H * K) + c[None, :]
        query = tl.load(q + shared * K + cells, mask=inside, other=0.0)
        key = tl.load(k + shared * K + cells, mask=inside, other=0.0)
        seen = tl.dot(query, tl.trans(key), seen, input_precision=PRECISION)
        if DELTA:
            read = key
            if READ:
                read = tl.load(taken + row * K + i[:, None] * (HV * K) + c[None, :], mask=inside, other=0.0)
            overlap = tl.dot(read, tl.trans(key), overlap, input_precision=PRECISION)
    out = i[:, None] * (HV * C) + i[None, :]
    if DECAY == "head":
        gates, _ = head_gates(log_decay, first, count, gate_stride, head, C)
        kept = spans(gates, C, 0)
        seen = seen * kept
        if EARLY:
            kept = spans_before(gates_before(log_decay, first, count, gate_stride, head, C), C)
        overlap = overlap * kept
    seen = tl.where(i[:, None] >= i[None, :], seen * scale, 0.0)
    tl.store(scores + row * C + out, seen.to(scores.dtype.element_ty), mask=live[:, None])
    if DELTA:
        if not READ:
            rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
            overlap = overlap * rate[:, None]
        overlap = tl.where(i[:, None] > i[None, :], overlap, 0.0)
        tl.store(overlaps + row * C + out, overlap, mask=live[:, None])


@triton.jit(do_not_specialize=["T", "chunks", "segments", "length", "H", "HV", "gate_stride"])
def fused(
    queries,
    keys,
    reads,
    known,
    log_decay,
    taken,
    inverses,
    left,
    scores,
    initial,
    starts,
    ends,
    firsts,
    o,
    last,
    factors,
    scale,
    T,
    chunks,
    segments,
    length,
    H,
    HV,
    gate_stride,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DELTA: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    WANT_OUT: tl.constexpr,
    WANT_LAST: tl.constexpr,
    WANT_FACTORS: tl.constexpr,
    IDENTITY: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BV values of the state of a head, through the chunks of one segment of a sequence.

    Writes o `[N, HV, V]` (WANT_OUT) by `scores` `[N, HV, C]`; the state after the segment, `last` `[pieces, HV, K, V]`
    (WANT_LAST), and the decay over it, `factors` `[pieces, HV, K]` (WANT_FACTORS); `initial` and IDENTITY as in
    `states`. With S the state before a chunk a token of the delta rule writes u = X beta (v - exp(sum from the start)
    S^T k), where X are the `inverses`: neither X beta v nor X beta k is needed by itself; READ: u = X (v - exp(sum from
    the start; EARLY: without the token's own) S^T r), of the vectors r `taken`. With gates by channel
    `queries`, `keys`, `reads`, `known` and `left` are those of `operands`, and u = known - S^T reads; else queries are
    q, keys k, and `known` v.
    """
    piece, head = tl.program_id(0), tl.program_id(2)
    c, i = tl.arange(0, BK), tl.arange(0, C)
    x = tl.program_id(1) * BV + tl.arange(0, BV)
    inside = (c < K)[:, None] & (x < V)[None, :]
    tile = c[:, None] * V + x[None, :]
    place = (tl.cast(piece, tl.int64) * HV + head) * K
    state = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + place * V + tile, mask=inside, other=0.0)
    if IDENTITY:
        state = tl.where((c[:, None] == x[None, :]) & inside, 1.0, 0.0)
    factor = tl.full([BK], 1.0, dtype=tl.float32)
    shared, key_heads = head // (HV // H), H
    if DECAY == "channel":
        shared, key_heads = head, HV
    begin, stop = segment_chunks(piece, firsts, chunks, segments, length, PACKED)
    for chunk in range(begin, stop):
        first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
        live = i < count
        row = first * HV + head
        own = live[:, None] & (c < K)[None, :]
        cells = i[:, None] * (HV * V) + x[None, :]
        values = live[:, None] & (x < V)[None, :]
        pairs = i[:, None] * (HV * C) + i[None, :]
        at = i[:, None] * (key_heads * K) + c[None, :]
        start = (first * key_heads + shared) * K
        key = tl.load(keys + start + at, mask=own, other=0.0)
        held = state.to(key.dtype)
        if DECAY == "head":
            gates, nexts = head_gates(log_decay, first, count, gate_stride, head, C)
            before = tl.exp(tl.cumsum(gates, 0))
        written = tl.zeros([C, BV], dtype=tl.float32)
        if not IDENTITY:
            written = tl.load(known + row * V + cells, mask=values, other=0.0).to(tl.float32)
        if DELTA:
            if DECAY == "channel":
                read = tl.load(reads + row * K + i[:, None] * (HV * K) + c[None, :], mask=own, other=0.0)
                written = written - tl.dot(read, held, input_precision=PRECISION)
            else:
                read = key
                if READ:
                    read = tl.load(taken + row * K + i[:, None] * (HV * K) + c[None, :], mask=own, other=0.0)
                recalled = tl.dot(read, held, input_precision=PRECISION)
                if EARLY:
                    ahead = gates_before(log_decay, first, count, gate_stride, head, C)
                    recalled = recalled * tl.exp(tl.cumsum(ahead, 0))[:, None]
                elif DECAY == "head":
                    recalled = recalled * before[:, None]
                missed = written - recalled
                if not READ:
                    rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
                    missed = missed * rate[:, None]
                missed = missed.to(key.dtype)
                inverse = tl.load(inverses + row * C + pairs, mask=live[:, None], other=0.0)
                written = tl.dot(inverse, missed, input_precision=PRECISION)
        if WANT_OUT:
            query = tl.load(queries + start + at, mask=own, other=0.0)
            out = tl.dot(query, held, input_precision=PRECISION)
            if DECAY == "head":
                out = out * (before * scale)[:, None]
            if DECAY == "none":
                out = out * scale
            weights = tl.load(scores + row * C + pairs, mask=live[:, None], other=0.0)
            out = tl.dot(weights, written.to(weights.dtype), out, input_precision=PRECISION)
            tl.store(o + row * V + cells, out.to(o.dtype.element_ty), mask=values)
        if DECAY == "head":
            written = written * tl.exp(tl.cumsum(nexts, 0, reverse=True))[:, None]
            whole = tl.exp(tl.sum(gates, 0))
            state = state * whole
            factor = factor * whole
        if DECAY == "channel":
            whole = tl.load(left + (tl.cast(chunk, tl.int64) * HV + head) * K + c, mask=c < K, other=0.0)
            state = state * whole[:, None]
            factor = factor * whole
        state = tl.dot(tl.trans(key), written.to(key.dtype), state, input_precision=PRECISION)
    if WANT_LAST:
        tl.store(last + place * V + tile, state, mask=inside)
    if WANT_FACTORS and tl.program_id(1) == 0:
        tl.store(factors + place + c, factor, mask=c < K)
