"""Products: the operations that a call spends in matrix products, counted as torch runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

Sizes = Sequence[int]


def products(run: Callable[[], object]) -> float:
    """FLOPs, 2 a multiply-add, of the matrix products, convolutions and triangular solves of `run()`.

    What a mask throws away afterwards is counted too, but for causal attention that torch is told to be so. Products
    written as elementwise ones are not, nor is what kernels of one's own do.
    """
    return Counter().of(run)


class Counter(TorchDispatchMode):
    """Sums torch's own formulas over the operations that run; its `FlopCounterMode` loads the compiler for the same."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: float = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        self.total += self.counted(func._overloadpacket, args, named, out)
        return out

    def of(self, run: Callable[[], object]) -> float:
        """What `run()` comes to."""
        with self, torch.no_grad():
            run()
        return self.total

    def counted(self, op: Any, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
        """What a call of an operation counts; 0 where torch has no formula of it."""
        formula = _FORMULAS.get(op)
        return 0.0 if formula is None else float(formula(*args, **named, out_val=out))


def _attention(q: Sizes, k: Sizes, v: Sizes, *rest: Any, **named: Any) -> float:
    """`q` `[B, H, T, D]`, `k` `[B, H, S, D]`; of a causal mask, which is aligned at the first key, what it leaves."""
    batch, heads, tokens, width = q
    causal = named.get("is_causal", rest[1] if len(rest) > 1 else False)
    keys, square = k[-2], min(tokens, k[-2])
    pairs = square * (square + 1) / 2 + (tokens - square) * keys if causal else tokens * keys
    return 2.0 * batch * heads * pairs * (width + v[-1])


def _triangular(_: Sizes, right: Sizes, **named: Any) -> float:
    """A system `[..., n, n]` for m columns `[..., n, m]`."""
    *batch, rows, columns = right
    return float(math.prod(batch) * rows * rows * columns)


_FORMULAS = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: shape_wrapper(_attention),
    torch.ops.aten.linalg_solve_triangular: shape_wrapper(_triangular),
}
"""By operation, what it costs; the last are those that torch leaves out."""
