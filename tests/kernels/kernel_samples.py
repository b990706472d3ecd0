"""A small kernel, and its builds, for the tests of compilation."""

from __future__ import annotations

import triton
import triton.language as tl

from archsearch.kernels import Build, Config


@triton.jit
def product(a, b, out, length, stride, M: tl.constexpr, MATRIX: tl.constexpr):
    """out = a b over tiles of M, with matrix instructions or with sums of outer products."""
    rows = tl.arange(0, M)
    total = tl.zeros((M, M), tl.float32)
    for start in range(0, length, M):
        left = tl.load(a + rows[:, None] * stride + start + rows[None])
        right = tl.load(b + (start + rows)[:, None] * stride + rows[None])
        if MATRIX:
            total += tl.dot(left, right)
        else:
            total += tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
    tl.store(out + rows[:, None] * stride + rows[None], total)


def build(*, tile: int = 64, matrix: bool = True, warps: int = 4) -> Build:
    """The product as it is launched on bfloat16."""
    signature = {"a": "*bf16", "b": "*bf16", "out": "*fp32", "length": "i32", "stride": "i32"}
    return Build(
        op="toy", name="product", fn=product, signature=signature, constexprs={"M": tile, "MATRIX": matrix},
        config=Config(tiles={"M": tile}, num_warps=warps), head_dim=tile, variant="matrix" if matrix else "scalar",
    )  # fmt: skip
