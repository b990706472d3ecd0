"""Fused forms: whether a kernel stands in for several small operations of PyTorch around a mixer's op."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.kernels import Table
from archsearch.ops.impl import Served, choose_impl


def fused(table: Table, x: Tensor, size: int, *, beside: Tensor | None = None) -> bool:
    """Whether the op of `table` runs its Triton kernel on `x`, as "auto" chooses for a row that serves `size`.

    The kernels compute in float32, so float64 stays with PyTorch; so does what they are not proven to read `beside` x:
    another dtype than its own, but for bfloat16 beside float32.
    """
    held = x.dtype if beside is None else beside.dtype
    double = torch.float64 in (x.dtype, held)
    apart = held != x.dtype and (x.dtype, held) != (torch.float32, torch.bfloat16)
    why = f"{held} beside {x.dtype}" if apart else "separate operations in PyTorch"
    why = "float64 needs PyTorch" if double else why
    served = None if double or apart else Served(table=table, device=x.device, dtype=x.dtype, head_dim=size)
    return choose_impl(table.op, "auto", why=why, served=served) == "triton"


def trained(*tensors: Tensor | None) -> bool:
    """Whether a gradient must reach one of the tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
