"""Fused forms: whether a kernel stands in for several small operations of PyTorch around a mixer's op."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.kernels import Table
from archsearch.ops.impl import Served, choose_impl


def fused(table: Table, x: Tensor, size: int) -> bool:
    """Whether the op of `table` runs its Triton kernel on `x`, as "auto" chooses for a row that serves `size`.

    The kernels compute in float32, so float64 stays with PyTorch.
    """
    double = x.dtype == torch.float64
    why = "float64 needs PyTorch" if double else "separate operations in PyTorch"
    served = None if double else Served(table=table, device=x.device, dtype=x.dtype, head_dim=size)
    return choose_impl(table.op, "auto", why=why, served=served) == "triton"


def trained(*tensors: Tensor | None) -> bool:
    """Whether a gradient must reach one of the tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
