"""Norms over the last dim: vectors scaled to length 1, and the gated RMSNorm."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.activations import activate, slope


@triton.jit
def _tile(rows, dim, ALIGNED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """This program's rows (64-bit), its columns, and which of both exist."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_D)
    if ALIGNED:
        dim = dim // 8 * 8
    return row, column, (row < rows)[:, None] & (column < dim)[None, :]


@triton.jit(do_not_specialize=["rows", "heads", "dim", "x_token"])
def unit_forward(
    x,
    unit,
    inverse,
    rows,
    heads,
    dim,
    x_token,
    eps,
    ALIGNED: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_R of the N H rows of x `[N, H, K]`, dense but for `x_token` from one token to the next; unit
    `[N, H, K]`, x over sqrt(sum of squares + eps); inverse, one over that, `[N H]` float32. ALIGNED: K and x_token are
    multiples of 8."""
    row, column, inside = _tile(rows, dim, ALIGNED, BLOCK_R, BLOCK_D)
    if ALIGNED:
        x_token, dim = x_token // 8 * 8, dim // 8 * 8
    start = row // heads * x_token + row % heads * dim
    value = tl.load(x + start[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    length = tl.rsqrt(tl.sum(value * value, axis=1) + eps)
    tl.store(inverse + row, length, mask=row < rows)
    out = unit + row[:, None] * dim + column[None, :]
    tl.store(out, (value * length[:, None]).to(unit.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "dim"])
def unit_backward(
    unit, inverse, d_unit, d_x, rows, dim, ALIGNED: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr
):
    """d_x = (d_unit - unit (d_unit . unit)) inverse, everything dense `[rows, K]`."""
    row, column, inside = _tile(rows, dim, ALIGNED, BLOCK_R, BLOCK_D)
    if ALIGNED:
        dim = dim // 8 * 8
    cells = row[:, None] * dim + column[None, :]
    direction = tl.load(unit + cells, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(d_unit + cells, mask=inside, other=0.0).to(tl.float32)
    length = tl.load(inverse + row, mask=row < rows, other=0.0)
    along = tl.sum(grad * direction, axis=1)
    sent = (grad - direction * along[:, None]) * length[:, None]
    tl.store(d_x + cells, sent.to(d_x.dtype.element_ty), mask=inside)


@triton.jit
def _normed(x, cells, inside, dim, eps):
    """Rows over their root mean square, and one over that, in float32."""
    value = tl.load(x + cells, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value, axis=1) / dim + eps)
    return value * inverse[:, None], inverse


@triton.jit(do_not_specialize=["rows", "heads", "dim", "gate_token"])
def gated_forward(
    x,
    weight,
    gate,
    out,
    rows,
    heads,
    dim,
    gate_token,
    eps,
    ACTIVATION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ODD_GATE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_R of the N H rows of x `[N, H, V]` normed, times weight `[V]` and the activated gate.

    gate `[N, H V]`, dense but for `gate_token` from one token to the next, not read where ACTIVATION is "none"; out
    `[N, H V]`. ALIGNED: V is a multiple of 8. ODD_GATE: gate_token is not, or the gate begins where 16 bytes do not.
    """
    row, column, inside = _tile(rows, dim, ALIGNED, BLOCK_R, BLOCK_D)
    if ALIGNED:
        dim = dim // 8 * 8
        if not ODD_GATE:
            gate_token = gate_token // 8 * 8
    cells = row[:, None] * dim + column[None, :]
    value, _ = _normed(x, cells, inside, dim, eps)
    value *= tl.load(weight + column, mask=column < dim, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION != "none":
        start = row // heads * gate_token + row % heads * dim
        opened = tl.load(gate + start[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
        value *= activate(opened, ACTIVATION)
    tl.store(out + cells, value.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "heads", "dim", "gate_token"])
def gated_backward(
    x,
    weight,
    gate,
    d_out,
    d_x,
    d_gate,
    d_weight,
    rows,
    heads,
    dim,
    gate_token,
    eps,
    ACTIVATION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ODD_GATE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """As `gated_forward`; d_out, d_x, d_gate dense; d_weight `[programs, V]` float32: what each program adds."""
    row, column, inside = _tile(rows, dim, ALIGNED, BLOCK_R, BLOCK_D)
    if ALIGNED:
        dim = dim // 8 * 8
        if not ODD_GATE:
            gate_token = gate_token // 8 * 8
    cells = row[:, None] * dim + column[None, :]
    value, inverse = _normed(x, cells, inside, dim, eps)
    scale = tl.load(weight + column, mask=column < dim, other=0.0).to(tl.float32)
    grad = tl.load(d_out + cells, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION != "none":
        start = row // heads * gate_token + row % heads * dim
        opened = tl.load(gate + start[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
        d_opened = grad * value * scale[None, :] * slope(opened, ACTIVATION)
        tl.store(d_gate + cells, d_opened.to(d_gate.dtype.element_ty), mask=inside)
        grad *= activate(opened, ACTIVATION)
    part = d_weight + tl.program_id(0).to(tl.int64) * dim + column
    tl.store(part, tl.sum(grad * value, axis=0), mask=column < dim)
    grad *= scale[None, :]
    along = tl.sum(grad * value, axis=1) / dim
    sent = (grad - value * along[:, None]) * inverse[:, None]
    tl.store(d_x + cells, sent.to(d_x.dtype.element_ty), mask=inside)
