"""Scores: the decayed products of a chunk's keys with its queries and with each other."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .decays import (
    channel_gates,
    gates_before,
    head_gates,
    meeting,
    meeting_across,
    meets,
    spans,
    spans_before,
)
from .places import chunk_tokens


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV", "gate_stride"])
def head_overlaps(
    k,
    log_decay,
    taken,
    starts,
    ends,
    overlaps,
    T,
    chunks,
    H,
    HV,
    gate_stride,
    K: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes r_i k_j exp(span) for j < i, float32 `[N, HV, C]`; gates by head or none.

    `taken` are the vectors r that the state is read by, `[N, HV, K]` (READ), or beta `[N, HV]`, of which r is beta k.
    The span is that of the log decays after token j up to token i, EARLY: up to the one before.
    """
    chunk, head = tl.program_id(0), tl.program_id(1)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row, shared = first * HV + head, first * H + head // (HV // H)
    products = tl.zeros([C, C], dtype=tl.float32)
    for begin_k in range(0, K, BK):
        c = begin_k + tl.arange(0, BK)
        at = k + shared * K + i[:, None] * (H * K) + c[None, :]
        inside = live[:, None] & (c < K)[None, :]
        key = tl.load(at, mask=inside, other=0.0)
        read = key
        if READ:
            read = tl.load(taken + row * K + i[:, None] * (HV * K) + c[None, :], mask=inside, other=0.0)
        products = tl.dot(read, tl.trans(key), products, input_precision=PRECISION)
    if not READ:
        rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
        products = products * rate[:, None]
    products = tl.where(i[:, None] > i[None, :], products, 0.0)
    if DECAY == "head":
        if EARLY:
            products = products * spans_before(gates_before(log_decay, first, count, gate_stride, head, C), C)
        else:
            gates, _ = head_gates(log_decay, first, count, gate_stride, head, C)
            products = products * spans(gates, C, 0)
    tl.store(overlaps + row * C + i[:, None] * (HV * C) + i[None, :], products, mask=live[:, None])


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV"])
def channel_scores(
    q,
    k,
    log_decay,
    taken,
    masks,
    starts,
    ends,
    scores,
    overlaps,
    scale,
    T,
    chunks,
    H,
    HV,
    K: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    LEVELS: tl.constexpr,
    DELTA: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes scale q_i k_j exp(span), j <= i, in k's dtype, and for the delta rule what `head_overlaps` writes, with a
    gate for each channel: both `[N, HV, C]`. C = 2^LEVELS, and `masks` are those of `level_masks`.

    A product of 64 tokens reads its second operand from shared memory, where it may lie either way. A smaller one has
    it in registers: there it is made transposed, as rounded accumulators that are turned in registers are what some
    compilers for Hopper get wrong.
    """
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
        gates = channel_gates(log_decay, first, count, HV, head, c, K, C)
        if READ:
            read = tl.load(taken + row * K + i[:, None] * (HV * K) + c[None, :], mask=inside, other=0.0)
        own = tl.sum(query.to(tl.float32) * key.to(tl.float32), 1)
        seen += tl.where(i[:, None] == i[None, :], own[:, None], 0.0)
        for level in range(LEVELS):
            decay = meeting(gates, masks, level, C)
            met = meets(level, C, 0)
            near_query = (query * decay).to(query.dtype)
            near_key = (key * decay).to(key.dtype)
            if C < 64:
                at_anchor = (tl.trans(key) * meeting_across(tl.trans(gates), masks, level, C)).to(key.dtype)
            else:
                at_anchor = tl.trans(near_key)
            seen += tl.where(met, tl.dot(near_query, at_anchor, input_precision=PRECISION), 0.0)
            if DELTA:
                near_read = near_key
                if EARLY:
                    near_read = (read * meeting(gates, masks + 2 * LEVELS * C * C, level, C)).to(key.dtype)
                elif READ:
                    near_read = (read * decay).to(key.dtype)
                overlap += tl.where(met, tl.dot(near_read, at_anchor, input_precision=PRECISION), 0.0)
    out = i[:, None] * (HV * C) + i[None, :]
    tl.store(scores + row * C + out, (seen * scale).to(scores.dtype.element_ty), mask=live[:, None])
    if DELTA:
        if not READ:
            rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
            overlap = overlap * rate[:, None]
        tl.store(overlaps + row * C + out, overlap, mask=live[:, None])
