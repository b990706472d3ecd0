"""Products: the operations that a call spends in matrix products, counted as torch runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Sizes = Sequence[int]


def products(run: Callable[[], object]) -> float:
    """FLOPs, 2 a multiply-add, of the matrix products, convolutions and triangular solves of `run()`.

    What a mask throws away afterwards is counted too, but for causal attention that torch is told to be so. Products
    written as elementwise ones are not, nor is what kernels of one's own do.
    """
    with FlopCounterMode(display=False, custom_mapping=_MORE) as counter, torch.no_grad():
        run()
    return float(counter.get_total_flops())


def _attention(q: Sizes, k: Sizes, v: Sizes, *rest: Any, **named: Any) -> float:
    """`q` `[B, H, T, D]`, `k` `[B, H, S, D]`; in a causal square the half that is needed."""
    batch, heads, tokens, width = q
    causal = named.get("is_causal", rest[1] if len(rest) > 1 else False)
    pairs = tokens * k[-2] / (2 if causal else 1)
    return 2.0 * batch * heads * pairs * (width + v[-1])


def _triangular(_: Sizes, right: Sizes, **named: Any) -> float:
    """A system `[..., n, n]` for m columns `[..., n, m]`."""
    *batch, rows, columns = right
    return float(math.prod(batch) * rows * rows * columns)


_MORE = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.linalg_solve_triangular: _triangular,
}
"""What torch's own counter leaves out on a CPU."""
