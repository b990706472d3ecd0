"""States: the pass over chunks, forwards for the state and backwards for its gradient, and the scan over segments."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .decays import head_gates
from .places import chunk_tokens, segment_chunks, sequence_chunks


@triton.jit
def product(
    left,
    right,
    M: tl.constexpr,
    L: tl.constexpr,
    N: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`left` `[M, L]` times `right` `[L, N]`. Where no matrix instruction makes it, a thread holds whole rows and
    columns of both: of so many PARTS apart, a part of them."""
    if PARTS == 1:
        out = tl.dot(left, right, input_precision=PRECISION)
    else:
        cut = tl.permute(tl.reshape(left, [M, PARTS, L // PARTS]), [1, 0, 2])
        out = tl.sum(tl.dot(cut, tl.reshape(right, [PARTS, L // PARTS, N]), input_precision=PRECISION), 0)
    return out


@triton.jit(do_not_specialize=["T", "chunks", "segments", "length", "H", "HV", "gate_stride"])
def states(
    keys,
    reads,
    known,
    log_decay,
    left,
    initial,
    starts,
    ends,
    firsts,
    befores,
    writes,
    last,
    factors,
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
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    WANT_STATES: tl.constexpr,
    WANT_LAST: tl.constexpr,
    WANT_FACTORS: tl.constexpr,
    IDENTITY: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BV values of the state of a head, through the chunks of one segment of a sequence.

    Writes the state before each chunk, `befores` `[chunks, HV, K, V]`, and what each token writes, `writes`
    `[N, HV, V]` (WANT_STATES); the state after the segment, `last` `[pieces, HV, K, V]` (WANT_LAST); the decay over it,
    `factors` `[pieces, HV, K]` (WANT_FACTORS). `initial` is as `last`. IDENTITY: from the identity (V = K), with
    nothing written but what the delta rule takes away, which gives the matrix that a segment multiplies the state by.
    `keys` are k `[N, H, K]`, or with gates by channel `operands`' `[N, HV, K]`.
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
        cells = i[:, None] * (HV * V) + x[None, :]
        values = live[:, None] & (x < V)[None, :]
        here = (tl.cast(chunk, tl.int64) * HV + head) * K
        if WANT_STATES:
            tl.store(befores + here * V + tile, state.to(befores.dtype.element_ty), mask=inside)
        if DELTA:
            at = reads + row * K + i[:, None] * (HV * K) + c[None, :]
            read = tl.load(at, mask=live[:, None] & (c < K)[None, :], other=0.0)
            recalled = product(read, state.to(read.dtype), C, BK, BV, PARTS, PRECISION)
            if IDENTITY:
                written = -recalled
            else:
                written = tl.load(known + row * V + cells, mask=values, other=0.0).to(tl.float32) - recalled
            if WANT_STATES:
                tl.store(writes + row * V + cells, written.to(writes.dtype.element_ty), mask=values)
        else:
            written = tl.load(known + row * V + cells, mask=values, other=0.0).to(tl.float32)
        if DECAY == "head":
            gates, nexts = head_gates(log_decay, first, count, gate_stride, head, C)
            written = written * tl.exp(tl.cumsum(nexts, 0, reverse=True))[:, None]
            whole = tl.exp(tl.sum(gates, 0))
            state = state * whole
            factor = factor * whole
        if DECAY == "channel":
            whole = tl.load(left + here + c, mask=c < K, other=0.0)
            state = state * whole[:, None]
            factor = factor * whole
        at = keys + (first * key_heads + shared) * K + i[None, :] * (key_heads * K) + c[:, None]
        key = tl.load(at, mask=live[None, :] & (c < K)[:, None], other=0.0)
        state = tl.dot(key, written.to(key.dtype), state, input_precision=PRECISION)
    if WANT_LAST:
        tl.store(last + place * V + tile, state, mask=inside)
    if WANT_FACTORS and tl.program_id(1) == 0:
        tl.store(factors + place + c, factor, mask=c < K)


@triton.jit(do_not_specialize=["T", "chunks", "segments", "length", "H", "HV", "gate_stride"])
def d_states(
    queries,
    keys,
    reads,
    d_o,
    log_decay,
    left,
    d_last,
    starts,
    ends,
    firsts,
    d_afters,
    d_writes,
    d_initial,
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
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_LAST: tl.constexpr,
    WANT_STATES: tl.constexpr,
    WANT_INITIAL: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`states` backwards. Writes the gradient of the state after each chunk, `d_afters` `[chunks, HV, K, V]`, and adds
    to that of each token's write, `d_writes` `[N, HV, V]`, what comes through the state (WANT_STATES); writes the
    gradient of the state before the segment (WANT_INITIAL). `queries` are q, or `operands`' with gates by channel."""
    piece, head = tl.program_id(0), tl.program_id(2)
    c, i = tl.arange(0, BK), tl.arange(0, C)
    x = tl.program_id(1) * BV + tl.arange(0, BV)
    inside = (c < K)[:, None] & (x < V)[None, :]
    tile = c[:, None] * V + x[None, :]
    place = (tl.cast(piece, tl.int64) * HV + head) * K * V
    state = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_LAST:
        state = tl.load(d_last + place + tile, mask=inside, other=0.0)
    shared, key_heads = head // (HV // H), H
    if DECAY == "channel":
        shared, key_heads = head, HV
    begin, stop = segment_chunks(piece, firsts, chunks, segments, length, PACKED)
    for back in range(begin, stop):
        chunk = stop - 1 - (back - begin)
        first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
        live = i < count
        row = first * HV + head
        cells = i[:, None] * (HV * V) + x[None, :]
        values = live[:, None] & (x < V)[None, :]
        here = (tl.cast(chunk, tl.int64) * HV + head) * K
        if WANT_STATES:
            tl.store(d_afters + here * V + tile, state.to(d_afters.dtype.element_ty), mask=inside)
        at = keys + (first * key_heads + shared) * K + i[:, None] * (key_heads * K) + c[None, :]
        key = tl.load(at, mask=live[:, None] & (c < K)[None, :], other=0.0)
        d_write = product(key, state.to(key.dtype), C, BK, BV, PARTS, PRECISION)
        if DECAY == "head":
            gates, nexts = head_gates(log_decay, first, count, gate_stride, head, C)
            d_write = d_write * tl.exp(tl.cumsum(nexts, 0, reverse=True))[:, None]
        d_write += tl.load(d_writes + row * V + cells, mask=values, other=0.0)
        if WANT_STATES:
            tl.store(d_writes + row * V + cells, d_write.to(d_writes.dtype.element_ty), mask=values)
        d_out = tl.load(d_o + row * V + cells, mask=values, other=0.0)
        if DECAY == "head":
            state = state * tl.exp(tl.sum(gates, 0))
            d_out = (d_out * (tl.exp(tl.cumsum(gates, 0)) * scale)[:, None]).to(d_out.dtype)
        if DECAY == "none":
            d_out = (d_out * scale).to(d_out.dtype)
        if DECAY == "channel":
            state = state * tl.load(left + here + c, mask=c < K, other=0.0)[:, None]
        across = live[None, :] & (c < K)[:, None]
        at = queries + (first * key_heads + shared) * K + i[None, :] * (key_heads * K) + c[:, None]
        query = tl.load(at, mask=across, other=0.0)
        state = tl.dot(query, d_out, state, input_precision=PRECISION)
        if DELTA:
            at = reads + row * K + i[None, :] * (HV * K) + c[:, None]
            read = tl.load(at, mask=across, other=0.0)
            state = tl.dot(read, (-d_write).to(read.dtype), state, input_precision=PRECISION)
    if WANT_INITIAL:
        tl.store(d_initial + place + tile, state, mask=inside)


@triton.jit(do_not_specialize=["chunks", "segments", "length", "HV"])
def scan(
    initial,
    factors,
    lasts,
    firsts,
    befores,
    final,
    chunks,
    segments,
    length,
    HV,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    DELTA: tl.constexpr,
    PACKED: tl.constexpr,
    HAS_INITIAL: tl.constexpr,
    WANT_FINAL: tl.constexpr,
    REVERSED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: BV values of a head's state over the segments of a sequence, S <- F S + E, in float32.

    `factors` F is `[pieces, HV, K, K]` for the delta rule, else the diagonal `[pieces, HV, K]`; `lasts` E and
    `befores`, the states before each segment, `[pieces, HV, K, V]`. REVERSED: from the last segment to the first, by F
    transposed.
    """
    sequence, head = tl.program_id(0), tl.program_id(2)
    c = tl.arange(0, BK)
    x = tl.program_id(1) * BV + tl.arange(0, BV)
    inside = (c < K)[:, None] & (x < V)[None, :]
    tile = c[:, None] * V + x[None, :]
    place = (sequence.to(tl.int64) * HV + head) * K * V
    state = tl.zeros([BK, BV], dtype=tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + place + tile, mask=inside, other=0.0)
    begin, stop = sequence_chunks(sequence, firsts, chunks, PACKED)
    used = tl.cdiv(stop - begin, length)
    for n in range(0, used):
        piece = sequence * segments + (used - 1 - n if REVERSED else n)
        here = (tl.cast(piece, tl.int64) * HV + head) * K
        tl.store(befores + here * V + tile, state, mask=inside)
        end = tl.load(lasts + here * V + tile, mask=inside, other=0.0)
        if DELTA:
            at = c[None, :] * K + c[:, None] if REVERSED else c[:, None] * K + c[None, :]
            factor = tl.load(factors + here * K + at, mask=(c < K)[:, None] & (c < K)[None, :], other=0.0)
            state = tl.dot(factor, state, end, input_precision=PRECISION)
        else:
            state = state * tl.load(factors + here + c, mask=c < K, other=0.0)[:, None] + end
    if WANT_FINAL:
        tl.store(final + place + tile, state, mask=inside)
