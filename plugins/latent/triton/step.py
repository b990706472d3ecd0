"""Attention of few tokens over latents as they lie in the cache, in parts of the rows that `merge_splits` merges."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.decode import rows_of_a_split
from archsearch.ops.triton.rows import softmax_turn


@triton.jit
def load_part(base, row, limit, step, first: tl.constexpr, width: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr):
    """Channels `first` to `first + width` of the rows `row`, D wide and `step` rows apart, `[rows, BLOCK]`; zeros for
    rows from `limit` on and channels beyond."""
    column = tl.arange(0, BLOCK)
    held = (row < limit)[:, None]
    if width < BLOCK:
        held = held & (column < width)[None, :]
    return tl.load(base + row[:, None].to(tl.int64) * (step * D) + first + column[None, :], mask=held, other=0.0)


@triton.jit(do_not_specialize=["S", "heads", "tokens", "row_batch", "row_step", "fill", "most", "splits"])
def latent_splits(
    q,
    rows,
    lengths,
    o,
    partial,
    lse,
    scale,
    S,
    heads,
    tokens,
    row_batch,
    row_step,
    fill,
    most,
    splits,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MERGED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (query token, tile of its heads, split), the split fastest; a row is read once, as key and as value.

    q `[B * tokens, H, D]`, absorbed; rows `[B, S, D]`, a latent of DV numbers and then the shared key, sequences and
    rows `row_batch` and `row_step` rows apart; lengths `[B * tokens]`: the rows that each query sees. MERGED: `partial`
    `[B * tokens, H, splits, DV]` and `lse` `[B * tokens, H, splits]`, base 2, of the splits that have rows; else o
    `[B * tokens, H, DV]`. ``scale`` includes log2(e).
    """
    pid = tl.program_id(0)
    split, rest = pid % splits, pid // splits
    tiles = tl.cdiv(heads, BLOCK_G)
    tile, query = rest % tiles, (rest // tiles).to(tl.int64)
    length, share = rows_of_a_split(lengths, query, S, fill, most, BLOCK_N)
    first = split * share
    if first >= length and (MERGED or split > 0):
        return
    last = tl.minimum(first + share, length)

    member = tile * BLOCK_G + tl.arange(0, BLOCK_G)
    rows += query // tokens * row_batch * D
    asked = load_part(q + query * heads * D, member, heads, 1, 0, DV, D, BLOCK_D)
    if D > DV:
        asked_shared = load_part(q + query * heads * D, member, heads, 1, DV, D - DV, D, BLOCK_K)
    top = tl.full([BLOCK_G], -1e30, tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    acc = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
    for i in range(tl.cdiv(last - first, BLOCK_N)):
        row = first + i * BLOCK_N + tl.arange(0, BLOCK_N)
        latents = load_part(rows, row, last, row_step, 0, DV, D, BLOCK_D).to(asked.dtype)
        scores = tl.dot(asked, tl.trans(latents), input_precision=PRECISION)
        if D > DV:
            shared = load_part(rows, row, last, row_step, DV, D - DV, D, BLOCK_K).to(asked.dtype)
            scores = tl.dot(asked_shared, tl.trans(shared), scores, input_precision=PRECISION)
        scores = tl.where((row < last)[None, :], scores * scale, -1e30)
        top, total, acc = softmax_turn(scores, latents, top, total, acc, PRECISION)
    acc = acc / tl.where(total > 0, total, 1.0)[:, None]
    column, head = tl.arange(0, BLOCK_D), query * heads + member
    stored = (member < heads)[:, None] & (column < DV)[None, :]
    if MERGED:
        tl.store(partial + (head * splits + split)[:, None] * DV + column[None, :], acc, mask=stored)
        tl.store(lse + head * splits + split, top + tl.log2(total), mask=member < heads)
    else:
        tl.store(o + head[:, None] * DV + column[None, :], acc.to(o.dtype.element_ty), mask=stored)
