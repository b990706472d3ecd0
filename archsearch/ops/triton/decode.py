"""One query a sequence over its cached rows: partial softmaxes over runs of rows, then their merge."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.rows import load_rows, softmax_turn

SIZES = ["S", "heads", "kv_heads", "k_batch", "k_step", "v_batch", "v_step", "fill", "most", "splits"]


@triton.jit
def rows_of_a_split(lengths, sequence, S, fill, most, BLOCK_N: tl.constexpr):
    """Rows that a sequence has filled, and how many of them one split reads: a multiple of BLOCK_N."""
    length = tl.minimum(tl.load(lengths + sequence), S).to(tl.int32)
    share = tl.minimum(tl.cdiv(length, fill), most)
    return length, tl.cdiv(tl.maximum(share, 1), BLOCK_N) * BLOCK_N


@triton.jit(do_not_specialize=SIZES)
def decode_splits(
    q,
    k,
    v,
    lengths,
    o,
    partial,
    lse,
    scale,
    S,
    heads,
    kv_heads,
    k_batch,
    k_step,
    v_batch,
    v_step,
    fill,
    most,
    splits,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MERGED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (sequence, key head, tile of its query heads, split), the split fastest.

    q `[B, Hq, D]`; k, v `[B, S, Hkv, D]`, sequences and rows `*_batch` and `*_step` heads apart; lengths `[B]`.
    MERGED: `partial` `[B, Hq, splits, DV]` and `lse` `[B, Hq, splits]`, base 2, of the splits that have rows;
    else o `[B, Hq, DV]`. ``scale`` includes log2(e).
    """
    pid = tl.program_id(0)
    split, rest = pid % splits, pid // splits
    group = heads // kv_heads
    tiles = tl.cdiv(group, BLOCK_G)
    tile, rest = rest % tiles, rest // tiles
    kv_head, sequence = rest % kv_heads, (rest // kv_heads).to(tl.int64)
    length, share = rows_of_a_split(lengths, sequence, S, fill, most, BLOCK_N)
    first = split * share
    if first >= length and (MERGED or split > 0):
        return
    last = tl.minimum(first + share, length)

    member = tile * BLOCK_G + tl.arange(0, BLOCK_G)
    head = sequence * heads + kv_head * group + member
    column = tl.arange(0, BLOCK_D)
    queries = tl.load(
        q + head[:, None] * D + column[None, :], mask=(member < group)[:, None] & (column < D)[None, :], other=0.0
    )
    k += (sequence * k_batch + kv_head) * D
    v += (sequence * v_batch + kv_head) * DV
    row = tl.arange(0, BLOCK_N)
    top = tl.full([BLOCK_G], -1e30, tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
    for i in range(tl.cdiv(last - first, BLOCK_N)):
        start = first + i * BLOCK_N
        keys = load_rows(k, start, last, k_step, D, BLOCK_N, BLOCK_D).to(queries.dtype)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        scores = tl.where((start + row < last)[None, :], scores, -1e30)
        values = load_rows(v, start, last, v_step, DV, BLOCK_N, BLOCK_D).to(queries.dtype)
        top, total, acc = softmax_turn(scores, values, top, total, acc, PRECISION)
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    stored = (member < group)[:, None] & (column < DV)[None, :]
    if MERGED:
        tl.store(partial + (head * splits + split)[:, None] * DV + column[None, :], acc, mask=stored)
        tl.store(lse + head * splits + split, top + tl.log2(total), mask=member < group)
    else:
        tl.store(o + head[:, None] * DV + column[None, :], acc.to(o.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=["S", "heads", "fill", "most", "splits"])
def merge_splits(
    partial,
    lse,
    lengths,
    o,
    S,
    heads,
    fill,
    most,
    splits,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Program (sequence, query head): o `[B, Hq, DV]` from the partial outputs of the splits that have rows."""
    head = tl.program_id(0).to(tl.int64)
    length, share = rows_of_a_split(lengths, head // heads, S, fill, most, BLOCK_N)
    used = tl.cdiv(length, share)
    split, column = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    partial += head * splits * DV
    lse += head * splits
    top = -1e30
    total = 0.0
    acc = tl.zeros([BLOCK_D], tl.float32)
    for start in range(0, used, BLOCK_S):
        here = start + split < used
        logs = tl.load(lse + start + split, mask=here, other=-1e30)
        new_top = tl.maximum(top, tl.max(logs, 0))
        weights = tl.where(here, tl.exp2(logs - new_top), 0.0)
        kept = tl.exp2(top - new_top)
        parts = tl.load(
            partial + (start + split)[:, None] * DV + column[None, :],
            mask=here[:, None] & (column < DV)[None, :],
            other=0.0,
        )
        total = total * kept + tl.sum(weights, 0)
        acc = acc * kept + tl.sum(weights[:, None] * parts, 0)
        top = new_top
    tl.store(o + head * DV + column, (acc / tl.where(total > 0, total, 1.0)).to(o.dtype.element_ty), mask=column < DV)
