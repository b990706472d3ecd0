"""A small kernel, and its builds, for the tests of compilation."""

from __future__ import annotations

import triton
import triton.language as tl

from archsearch.kernels import Build, Config

ROUND: tl.constexpr = tl.constexpr(1.0)


@triton.jit
def tile_of(base, first, columns, stride, M: tl.constexpr):
    """The tile `[M, M]` whose first row is `first`."""
    return tl.load(base + (first + tl.arange(0, M))[:, None] * stride + columns[None])


@triton.jit
def product(
    a,
    b,
    out,
    length,
    stride,
    M: tl.constexpr,
    MATRIX: tl.constexpr,
    TURNED: tl.constexpr,
    PRECISION: tl.constexpr = "tf32",
    ROUNDED: tl.constexpr = False,
):
    """out = a b over tiles of M, with matrix instructions or with sums of outer products; TURNED: (a b)^T a b; ROUNDED:
    whatever PRECISION says, of operands in float32 ten bits count."""
    rows = tl.arange(0, M)
    total = tl.zeros((M, M), tl.float32)
    for start in range(0, length, M):
        left = tile_of(a + start, 0, rows, stride, M)
        right = tile_of(b, start, rows, stride, M)
        if MATRIX:
            total += tl.dot(left, right, input_precision="tf32" if ROUNDED else PRECISION)
        else:
            total += tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
    if TURNED:
        rounded = (total * ROUND).to(tl.bfloat16)
        total = tl.dot(tl.trans(rounded), rounded)
    tl.store(out + rows[:, None] * stride + rows[None], total)


def build(
    *,
    tile: int = 64,
    matrix: bool = True,
    warps: int = 4,
    turned: bool = False,
    operands: str = "*bf16",
    precision: str = "tf32",
    rounded: bool = False,
) -> Build:
    """The product as it is launched on bfloat16, or on other operands."""
    signature = {"a": operands, "b": operands, "out": "*fp32", "length": "i32", "stride": "i32"}
    constexprs = {"M": tile, "MATRIX": matrix, "TURNED": turned, "PRECISION": precision, "ROUNDED": rounded}
    return Build(
        op="toy",
        name="product",
        fn=product,
        signature=signature,
        constexprs=constexprs,
        config=Config(tiles={"M": tile}, num_warps=warps),
        head_dim=tile,
        variant="matrix" if matrix else "scalar",
    )
