"""Decoding in parts: one query a sequence over runs of rows, their merge, and the means of blocks as they fill."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.block_rows import finished, finite, load_rows


@triton.jit
def attend_run(
    q,
    k,
    v,
    first,
    end,
    scale,
    k_heads,
    v_heads,
    kv_head,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
):
    """Sum `[WIDTH]`, highest score and total weight of q `[WIDTH]` float32 over up to N rows from `first` to `end`."""
    rows = first + tl.arange(0, N)
    there = rows < end
    k_tile = load_rows(k, rows, there, k_heads, kv_head, D, WIDTH).to(tl.float32)
    v_tile = load_rows(v, rows, there, v_heads, kv_head, D, WIDTH).to(tl.float32)
    s = tl.where(there, tl.sum(k_tile * q[None, :], 1) * scale, -float("inf"))
    top = tl.max(s, 0)
    p = tl.exp2(s - finite(top))
    out = tl.sum(p[:, None] * v_tile, 0)
    return out, top, tl.sum(p, 0)


@triton.jit
def merged_parts(parts, part_norms, base, count, D: tl.constexpr, WIDTH: tl.constexpr, M: tl.constexpr):
    """Output `[1, WIDTH]` and log-sum-exp `[1]` of `count` parts from row `base` on, -inf for none."""
    acc = tl.zeros([1, WIDTH], tl.float32)
    top = tl.full([1], -float("inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    for start in range(0, count, M):
        places = start + tl.arange(0, M)
        norms = tl.load(part_norms + base + places, mask=places < count, other=-float("inf"))
        part = load_rows(parts, base + places, norms != -float("inf"), 1, 0, D, WIDTH).to(tl.float32)
        higher = tl.maximum(top, tl.max(norms, 0))
        highest = finite(higher)
        weights = tl.exp2(norms - highest)
        fade = tl.exp2(top - highest)
        acc = acc * fade[:, None] + tl.sum(part * weights[:, None], 0)[None, :]
        total = total * fade + tl.sum(weights, 0)
        top = higher
    return finished(acc, top, total)


@triton.jit(do_not_specialize=["count"])
def merge_parts(
    parts,
    part_norms,
    o,
    count,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    M: tl.constexpr,
):
    """o `[rows, D]` of parts `[rows, count, D]` and part_norms `[rows, count]`; grid (rows)."""
    row = tl.program_id(0).to(tl.int64)
    out, _ = merged_parts(parts, part_norms, row * count, count, D, WIDTH, M)
    d = tl.arange(0, WIDTH)[None, :]
    tl.store(o + row * D + d, out.to(o.dtype.element_ty), mask=d < D)


@triton.jit(do_not_specialize=["block_size", "x_batch", "x_heads", "mean_batch", "mean_heads"])
def mean_of_last(
    x,
    lengths,
    means,
    block_size,
    x_batch,
    x_heads,
    mean_batch,
    mean_heads,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
):
    """Writes the mean of the block that the last token of a sequence completes, if it does; grid (B, H).

    x `[B, S, H, D]`, means `[B, n, H, D]`; lengths `[B]` include the last token.
    """
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + sequence).to(tl.int32)
    if length % block_size == 0:
        total = tl.zeros([WIDTH], tl.float32)
        for start in range(length - block_size, length, N):
            rows = start + tl.arange(0, N)
            x_tile = load_rows(x + sequence * x_batch * D, rows, rows < length, x_heads, head, D, WIDTH)
            total += tl.sum(x_tile.to(tl.float32), 0)
        d = tl.arange(0, WIDTH)
        place = means + (sequence * mean_batch + (length // block_size - 1).to(tl.int64) * mean_heads + head) * D + d
        tl.store(place, (total / block_size).to(means.dtype.element_ty), mask=d < D)
