"""Gates from projected features, elementwise: log decays of several forms, step sizes, write strengths."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.bounds import LOG_RATE_MOST, STEP_MOST
from archsearch.ops.triton.activations import sigmoid, softplus

_LOG_RATE_MOST = tl.constexpr(LOG_RATE_MOST)
_STEP_MOST = tl.constexpr(STEP_MOST)


@triton.jit
def _at_most(x, most):
    """`x`, or `most` where it is more; NaN stays."""
    return tl.where(x > most, most, x)


@triton.jit
def _place(rows, columns, ALIGNED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """This program's rows (64-bit), its columns, and which of both exist."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    if ALIGNED:
        columns = columns // 8 * 8
    return row, column, (row < rows)[:, None] & (column < columns)[None, :]


@triton.jit(do_not_specialize=["rows", "columns", "group", "x_row"])
def gate_forward(
    x,
    bias,
    rate,
    out,
    step,
    rows,
    columns,
    group,
    x_row,
    temperature,
    FORM: tl.constexpr,
    STEP: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """out, step `[N, C]` float32 from x `[N, C]`, `x_row` from one row to the next.

    FORM "rate": step = softplus(x + bias), out = -exp(rate) step, bias `[C]`, rate `[C / group]`, x + bias at most
    `STEP_MOST` and rate `LOG_RATE_MOST`; step is written where STEP. "logsigmoid": logsigmoid(x) / temperature.
    "sigmoid": sigmoid(x). ALIGNED: C and x_row are multiples of 8.
    """
    row, column, inside = _place(rows, columns, ALIGNED, BLOCK_R, BLOCK_C)
    if ALIGNED:
        columns, x_row = columns // 8 * 8, x_row // 8 * 8
    value = tl.load(x + row[:, None] * x_row + column[None, :], mask=inside, other=0.0).to(tl.float32)
    cells = row[:, None] * columns + column[None, :]
    if FORM == "rate":
        value += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        value = softplus(_at_most(value, _STEP_MOST))
        if STEP:
            tl.store(step + cells, value, mask=inside)
        log_rate = tl.load(rate + column // group, mask=column < columns, other=0.0).to(tl.float32)
        rates = tl.exp(_at_most(log_rate, _LOG_RATE_MOST))
        value = -rates[None, :] * value
    elif FORM == "logsigmoid":
        value = -softplus(-value) / temperature
    else:
        value = sigmoid(value)
    tl.store(out + cells, value, mask=inside)


@triton.jit(do_not_specialize=["rows", "columns", "group", "x_row"])
def gate_backward(
    x,
    bias,
    rate,
    d_out,
    d_step,
    d_x,
    d_bias,
    d_rate,
    rows,
    columns,
    group,
    x_row,
    temperature,
    FORM: tl.constexpr,
    STEP: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """As `gate_forward`; d_out, d_step and d_x dense; d_bias, d_rate `[programs, C]` float32, for "rate" alone: what
    each program's rows add."""
    row, column, inside = _place(rows, columns, ALIGNED, BLOCK_R, BLOCK_C)
    if ALIGNED:
        columns, x_row = columns // 8 * 8, x_row // 8 * 8
    value = tl.load(x + row[:, None] * x_row + column[None, :], mask=inside, other=0.0).to(tl.float32)
    cells = row[:, None] * columns + column[None, :]
    grad = tl.load(d_out + cells, mask=inside, other=0.0)
    if FORM == "rate":
        value += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        log_rate = tl.load(rate + column // group, mask=column < columns, other=0.0).to(tl.float32)
        rates = -tl.exp(_at_most(log_rate, _LOG_RATE_MOST))
        bounded = value > _STEP_MOST
        parts = tl.program_id(0).to(tl.int64) * columns + column
        through = rates[None, :] * grad
        d_log_rate = tl.sum(through * softplus(_at_most(value, _STEP_MOST)), axis=0)
        tl.store(d_rate + parts, tl.where(log_rate > _LOG_RATE_MOST, 0.0, d_log_rate), mask=column < columns)
        if STEP:
            through += tl.load(d_step + cells, mask=inside, other=0.0)
        grad = tl.where(bounded, 0.0, through * sigmoid(value))
        tl.store(d_bias + parts, tl.sum(grad, axis=0), mask=column < columns)
    elif FORM == "logsigmoid":
        grad *= sigmoid(-value) / temperature
    else:
        grad *= sigmoid(value) * sigmoid(-value)
    tl.store(d_x + cells, grad.to(d_x.dtype.element_ty), mask=inside)
