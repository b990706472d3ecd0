"""Rows of heads in tiles at any tokens, and the softmax over tiles of keys: what block-sparse kernels are made of.

A tensor of heads `[tokens, H, D]` is read as rows: ``heads`` is the distance of two tokens in rows, which is H or, in
a slice of a wider tensor, more. Scores and log-sum-exps are to base 2: ``scale`` carries the log2 of e.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def row_offsets(tokens, heads, head, D: tl.constexpr, WIDTH: tl.constexpr):
    """Offsets `[tokens, WIDTH]` of rows, 64 bits wide."""
    return (tokens.to(tl.int64) * heads + head)[:, None] * D + tl.arange(0, WIDTH)[None, :]


@triton.jit
def row_mask(valid, D: tl.constexpr, WIDTH: tl.constexpr):
    """Mask `[tokens, WIDTH]` of the channels that there are of the tokens that are `valid`."""
    mask = valid[:, None]
    if D != WIDTH:
        mask = mask & (tl.arange(0, WIDTH) < D)[None, :]
    return mask


@triton.jit
def load_rows(base, tokens, valid, heads, head, D: tl.constexpr, WIDTH: tl.constexpr):
    """Tile `[tokens, WIDTH]`, zeros where there is nothing."""
    return tl.load(base + row_offsets(tokens, heads, head, D, WIDTH), mask=row_mask(valid, D, WIDTH), other=0.0)


@triton.jit
def load_span(base, first, end, heads, head, N: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr):
    """Tile `[N, WIDTH]` of the tokens from `first` on, zeros from `end` on."""
    tokens = first + tl.arange(0, N)
    return load_rows(base, tokens, tokens < end, heads, head, D, WIDTH)


@triton.jit
def store_rows(base, x, tokens, valid, heads, head, D: tl.constexpr, WIDTH: tl.constexpr):
    """Writes a tile `[tokens, WIDTH]` in the type of the memory."""
    offsets = row_offsets(tokens, heads, head, D, WIDTH)
    tl.store(base + offsets, x.to(base.dtype.element_ty), mask=row_mask(valid, D, WIDTH))


@triton.jit
def add_rows(base, x, tokens, valid, heads, head, D: tl.constexpr, WIDTH: tl.constexpr):
    """Adds a tile `[tokens, WIDTH]` to what is there; no other program may write these rows."""
    offsets, mask = row_offsets(tokens, heads, head, D, WIDTH), row_mask(valid, D, WIDTH)
    before = tl.load(base + offsets, mask=mask, other=0.0)
    tl.store(base + offsets, (before + x).to(base.dtype.element_ty), mask=mask)


@triton.jit
def finite(norm):
    """`norm`, 0 where it is -inf: what may be subtracted from a score."""
    return tl.where(norm == -float("inf"), 0.0, norm)


@triton.jit
def take_scores(s, v, acc, top, total, PRECISION: tl.constexpr):
    """One tile of scores `[M, N]` and values `[N, D]` into a running softmax: sum, highest score, total weight."""
    higher = tl.maximum(top, tl.max(s, 1))
    base = finite(higher)
    p = tl.exp2(s - base[:, None])
    fade = tl.exp2(top - base)
    total = total * fade + tl.sum(p, 1)
    acc = tl.dot(p.to(v.dtype), v, acc * fade[:, None], input_precision=PRECISION)
    return acc, higher, total


@triton.jit
def take_part(part, norm, acc, top, total):
    """A finished part `[M, D]` with its log-sum-exp `[M]`, -inf for none, into a running softmax."""
    higher = tl.maximum(top, norm)
    base = finite(higher)
    fade, weight = tl.exp2(top - base), tl.exp2(norm - base)
    return acc * fade[:, None] + part.to(tl.float32) * weight[:, None], higher, total * fade + weight


@triton.jit
def finished(acc, top, total):
    """Output `[M, D]` and log-sum-exp `[M]` of a running softmax: zeros and -inf where nothing was seen, and NaN where
    a NaN was."""
    some = total != 0
    safe = tl.where(some, total, 1.0)
    return acc / safe[:, None], tl.where(some, top + tl.log2(safe), -float("inf"))


@triton.jit
def grad_of_keys(k, v, q, g, seen, norm, inner, dk, dv, scale, PRECISION: tl.constexpr):
    """dk (yet to be scaled) and dv `[N, D]` with what M queries add; `seen` `[N, M]`.

    The weights are made transposed, k q^T, rather than turned round in registers.
    """
    s = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale - norm[None, :]
    p = tl.exp2(tl.where(seen, s, -float("inf")))
    dv = tl.dot(p.to(g.dtype), g, dv, input_precision=PRECISION)
    ds = p * (tl.dot(v, tl.trans(g), input_precision=PRECISION) - inner[None, :])
    dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["rows_count"])
def inner_products(o, g, inners, rows_count, D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr):
    """o . g `[rows]` of rows `[rows, D]`; grid (tiles of rows)."""
    rows = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    valid = rows < rows_count
    products = load_rows(o, rows, valid, 1, 0, D, WIDTH).to(tl.float32) * load_rows(g, rows, valid, 1, 0, D, WIDTH)
    tl.store(inners + rows, tl.sum(products, 1), mask=valid)
