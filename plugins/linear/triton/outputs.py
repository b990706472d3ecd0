"""Outputs: what the tokens of a chunk read of the state before it and of each other's writes."""
# mypy: ignore-errors

import triton
import triton.language as tl

from .decays import head_gates, spans
from .places import chunk_tokens


@triton.jit(do_not_specialize=["T", "chunks", "H", "HV", "gate_stride"])
def outputs(
    queries,
    k,
    writes,
    log_decay,
    scores,
    befores,
    starts,
    ends,
    o,
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
    """Writes o `[N, HV, V]`. With gates by channel `queries` are `operands`', and `scores` are read; else `queries` are
    q, and the scores are taken here."""
    chunk, head = tl.program_id(0), tl.program_id(2)
    first, count = chunk_tokens(chunk, starts, ends, T, chunks, C, PACKED)
    if count <= 0:
        return
    i = tl.arange(0, C)
    live = i < count
    row = first * HV + head
    x = tl.program_id(1) * BV + tl.arange(0, BV)
    values = live[:, None] & (x < V)[None, :]
    shared, key_heads = first * H + head // (HV // H), H
    if DECAY == "channel":
        shared, key_heads = row, HV
    out = tl.zeros([C, BV], dtype=tl.float32)
    products = tl.zeros([C, C], dtype=tl.float32)
    here = (chunk.to(tl.int64) * HV + head) * K * V
    for begin_k in range(0, K, BK):
        c = begin_k + tl.arange(0, BK)
        inside = live[:, None] & (c < K)[None, :]
        cells = i[:, None] * (key_heads * K) + c[None, :]
        query = tl.load(queries + shared * K + cells, mask=inside, other=0.0)
        tile = c[:, None] * V + x[None, :]
        state = tl.load(befores + here + tile, mask=(c < K)[:, None] & (x < V)[None, :], other=0.0)
        out = tl.dot(query, state, out, input_precision=PRECISION)
        if DECAY != "channel":
            key = tl.load(k + shared * K + cells, mask=inside, other=0.0)
            products = tl.dot(query, tl.trans(key), products, input_precision=PRECISION)
    cells = i[:, None] * (HV * V) + x[None, :]
    written = tl.load(writes + row * V + cells, mask=values, other=0.0)
    if DECAY == "channel":
        at = scores + row * C + i[:, None] * (HV * C) + i[None, :]
        weights = tl.load(at, mask=live[:, None], other=0.0)
    elif DECAY == "head":
        gates, _ = head_gates(log_decay, first, count, gate_stride, head, C)
        out *= (tl.exp(tl.cumsum(gates, 0)) * scale)[:, None]
        weights = (products * spans(gates, C, 0) * scale).to(written.dtype)
    else:
        out *= scale
        weights = tl.where(i[:, None] >= i[None, :], products * scale, 0.0).to(written.dtype)
    out = tl.dot(weights, written, out, input_precision=PRECISION)
    tl.store(o + row * V + cells, out.to(o.dtype.element_ty), mask=values)
