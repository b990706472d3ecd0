"""Solve: the triangular systems of the delta rule, by blocks of 16, and the operands of the pass over chunks."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .decays import channel_gates, from_start, from_start_before, gates_before, head_gates, to_end
from .places import chunk_tokens


@triton.jit
def block_inverse(lower):
    """Inverse of I + `lower`, `[16, 16]` and strictly lower triangular, by substitution row after row."""
    i = tl.arange(0, 16)
    inverse = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    for row in tl.static_range(1, 16):
        weights = tl.sum(tl.where(i[:, None] == row, lower, 0.0), 0)
        known = tl.sum(weights[:, None] * inverse, 0)
        inverse = tl.where(i[:, None] == row, inverse - known[None, :], inverse)
    return inverse


@triton.jit(do_not_specialize=["T", "chunks", "HV"])
def solve(
    overlaps,
    starts,
    ends,
    inverses,
    T,
    chunks,
    HV,
    C: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes the inverse of I + `overlaps` of each chunk, both `[N, HV, C]`, in the dtype of `inverses`.

    Row of blocks after row of blocks: X_rs = -X_rr (sum over s <= m < r of L_rm X_ms).
    """
    chunk, head = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, 16)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    overlaps += (first * HV + head) * C
    inverses += (first * HV + head) * C
    blocks: tl.constexpr = C // 16
    found = ()
    for r in tl.static_range(blocks):
        rows = r * 16 + i
        live = (rows < count)[:, None]
        cells = rows[:, None] * (HV * C) + i[None, :]
        own = block_inverse(tl.load(overlaps + cells + r * 16, mask=live, other=0.0))
        for s in tl.static_range(r):
            total = tl.zeros([16, 16], dtype=tl.float32)
            for m in tl.static_range(s, r):
                lower = tl.load(overlaps + cells + m * 16, mask=live, other=0.0)
                total = tl.dot(lower, found[m * (m + 1) // 2 + s], total, input_precision=PRECISION)
            total = -tl.dot(own, total, input_precision=PRECISION)
            tl.store(inverses + cells + s * 16, total.to(inverses.dtype.element_ty), mask=live)
            found = found + (total,)
        tl.store(inverses + cells + r * 16, own.to(inverses.dtype.element_ty), mask=live)
        for s in tl.static_range(r + 1, blocks):
            zeros = tl.zeros([16, 16], dtype=inverses.dtype.element_ty)
            tl.store(inverses + cells + s * 16, zeros, mask=live)
        found = found + (own,)


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV", "gate_stride"])
def operands(
    q,
    k,
    v,
    log_decay,
    taken,
    inverses,
    starts,
    ends,
    queries,
    keys,
    left,
    reads,
    known,
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
    DELTA: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    DECAY: tl.constexpr,
    PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes what the passes over chunks multiply.

    Gates by channel: queries scale q exp(sum from the start), keys k exp(sum to the end), both `[N, HV, K]`, and left,
    the decay of a whole chunk, float32 `[chunks, HV, K]`. Delta rule, with X the inverse: reads X beta k exp(sum from
    the start) `[N, HV, K]` and known X beta v `[N, HV, V]`; READ: X r exp(sum from the start; EARLY: without the
    token's own) and X v, of the vectors r `taken` `[N, HV, K]`.
    """
    chunk, head = tl.program_id(0), tl.program_id(1)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row, shared = first * HV + head, first * H + head // (HV // H)
    if DELTA:
        at = inverses + row * C + i[:, None] * (HV * C) + i[None, :]
        inverse = tl.load(at, mask=live[:, None], other=0.0)
        if READ:
            rate = tl.full([C], 1.0, dtype=tl.float32)
        else:
            rate = tl.load(taken + row + i * HV, mask=live, other=0.0).to(tl.float32)
        for begin_v in range(0, V, BV):
            c = begin_v + tl.arange(0, BV)
            inside = live[:, None] & (c < V)[None, :]
            cells = i[:, None] * (HV * V) + c[None, :]
            value = tl.load(v + row * V + cells, mask=inside, other=0.0)
            strong = value
            if not READ:
                strong = (value * rate[:, None]).to(value.dtype)
            out = tl.dot(inverse, strong, input_precision=PRECISION)
            tl.store(known + row * V + cells, out.to(known.dtype.element_ty), mask=inside)
        if DECAY == "head":
            if EARLY:
                gates = gates_before(log_decay, first, count, gate_stride, head, C)
            else:
                gates, _ = head_gates(log_decay, first, count, gate_stride, head, C)
            rate = rate * tl.exp(tl.cumsum(gates, 0))
    for begin_k in range(0, K, BK):
        c = begin_k + tl.arange(0, BK)
        inside = live[:, None] & (c < K)[None, :]
        cells = i[:, None] * (HV * K) + c[None, :]
        key = tl.load(k + shared * K + i[:, None] * (H * K) + c[None, :], mask=inside, other=0.0)
        strong = key.to(tl.float32)
        if READ:
            strong = tl.load(taken + row * K + cells, mask=inside, other=0.0).to(tl.float32)
        if DECAY == "channel":
            gates = channel_gates(log_decay, first, count, HV, head, c, K, C)
            before, after = from_start(gates, key, C), to_end(gates, key, C)
            query = tl.load(q + shared * K + i[:, None] * (H * K) + c[None, :], mask=inside, other=0.0)
            tl.store(queries + row * K + cells, (query * before * scale).to(queries.dtype.element_ty), mask=inside)
            tl.store(keys + row * K + cells, (key * after).to(keys.dtype.element_ty), mask=inside)
            whole = tl.exp(tl.sum(gates, 0))
            tl.store(left + (chunk.to(tl.int64) * HV + head) * K + c, whole, mask=c < K)
            strong = strong * (from_start_before(gates, key, C) if EARLY else before)
        if DELTA:
            strong = (strong * rate[:, None]).to(key.dtype)
            out = tl.dot(inverse, strong, input_precision=PRECISION)
            tl.store(reads + row * K + cells, out.to(reads.dtype.element_ty), mask=inside)
