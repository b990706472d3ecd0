"""Tiles of softmax attention: loads and stores of runs of tokens of one head, and a turn of the online softmax."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def load_rows(pointer, first, limit, step, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows first .. first + ROWS - 1 of D elements, `step` heads apart, `[ROWS, BLOCK_D]`; zeros from `limit` on."""
    row, column = first + tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    held = (row < limit)[:, None]
    if D < BLOCK_D:
        held = held & (column < D)[None, :]
    return tl.load(pointer + row[:, None].to(tl.int64) * (step * D) + column[None, :], mask=held, other=0.0)


@triton.jit
def store_rows(pointer, tile, first, limit, step, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The inverse of `load_rows`, in the dtype of the pointer."""
    row, column = tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    pointer += first.to(tl.int64) * (step * D)
    held = (first + row < limit)[:, None]
    if D < BLOCK_D:
        held = held & (column < D)[None, :]
    tl.store(pointer + row[:, None] * (step * D) + column[None, :], tile.to(pointer.dtype.element_ty), mask=held)


@triton.jit
def softmax_turn(scores, values, top, total, acc, PRECISION: tl.constexpr):
    """One block's part in the online softmax of scaled scores, base 2 (arXiv 2307.08691, algorithm 1)."""
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp2(scores - new_top[:, None])
    kept = tl.exp2(top - new_top)
    total = total * kept + tl.sum(weights, 1)
    acc = tl.dot(weights.to(values.dtype), values, acc * kept[:, None], input_precision=PRECISION)
    return new_top, total, acc
