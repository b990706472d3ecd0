"""The triangular system of the delta rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def unit_lower_solve(below: Tensor, right: Tensor) -> Tensor:
    """X `[..., C, V]` of (I + what is below the diagonal of `below` `[..., C, C]`) X = `right` `[..., C, V]`."""
    solution: Tensor = _UnitLowerSolve.apply(below, right)  # type: ignore[no-untyped-call]
    return solution


class _UnitLowerSolve(torch.autograd.Function):
    """By the explicit inverse: one substitution, and products of whole batches from there on, backward included."""

    @staticmethod
    def forward(ctx: Any, below: Tensor, right: Tensor) -> Any:
        eye = torch.eye(below.shape[-1], dtype=below.dtype, device=below.device).expand_as(below)
        inverse = torch.linalg.solve_triangular(below, eye, upper=False, unitriangular=True)
        solution = inverse @ right
        ctx.save_for_backward(inverse, solution)
        return solution

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_solution: Tensor) -> tuple[Tensor, Tensor]:
        inverse, solution = ctx.saved_tensors
        d_right = inverse.mT @ d_solution
        return (d_right @ solution.mT).neg_().tril_(-1), d_right
