"""Window attention, forward: one program a block of queries of one head."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.rows import load_rows, softmax_turn, store_rows

from .tiles import filled_keys, key_block, key_blocks, mask_scores, sight

SIZES = [
    "T",
    "S",
    "heads",
    "kv_heads",
    "window",
    "sinks",
    "q_batch",
    "q_step",
    "k_batch",
    "k_step",
    "v_batch",
    "v_step",
]


@triton.jit(do_not_specialize=SIZES)
def attention_forward(
    q,
    k,
    v,
    o,
    lse,
    starts,
    lengths,
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
    """o `[B, T, Hq, DV]` and lse `[B, Hq, T]`, base 2, of q `[B, T, Hq, D]` and k, v `[B, S, Hkv, D]`.

    Sequences and tokens are `*_batch` and `*_step` heads apart; ``scale`` includes log2(e).
    PACKED: ``starts`` `[T]` is the first token of each token's sequence. RAGGED: the sequences have filled ``lengths``
    `[B]` of the S rows, and the queries are the last T of those.
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
    lse += row * T

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
    # finite, so that a row that sees nothing of its first block stays finite: its next block scales that away
    top = tl.full([M], -1e30, tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, BLOCK_D], tl.float32)
    for i in range(sink_blocks + band_blocks):
        at = key_block(i, start, low, sink_blocks, N)
        keys = load_rows(k, at, S, k_step, D, N, BLOCK_D)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        scores = mask_scores(scores, -1e30, at, query, own, own_sinks_end, recent, low, middle, right, N, PACKED)
        values = load_rows(v, at, S, v_step, DV, N, BLOCK_D)
        top, total, acc = softmax_turn(scores, values, top, total, acc, PRECISION)

    store_rows(o, acc / total[:, None], block * M, T, heads, DV, M, BLOCK_D)
    tl.store(lse + member, top + tl.log2(total), mask=member < T)
