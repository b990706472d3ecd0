"""The triangular system of the delta rule."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def unit_lower_solve(below: Tensor, *right: Tensor) -> tuple[Tensor, ...]:
    """X `[..., C, V]` of (I + what is below the diagonal of `below` `[..., C, C]`) X = R, for each R `[..., C, V]`."""
    solutions: tuple[Tensor, ...] = _UnitLowerSolve.apply(below, *right)  # type: ignore[no-untyped-call]
    return solutions


class _UnitLowerSolve(torch.autograd.Function):
    """By the explicit inverse: one substitution, and products of whole batches from there on, backward included."""

    @staticmethod
    def forward(ctx: Any, below: Tensor, *right: Tensor) -> tuple[Tensor, ...]:
        inverse = _inverse(below)
        solutions = tuple(inverse @ side for side in right)
        ctx.save_for_backward(inverse, *solutions)
        return solutions

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_solutions: Tensor) -> tuple[Tensor, ...]:
        inverse, *solutions = ctx.saved_tensors
        d_right = [inverse.mT @ d_solution for d_solution in d_solutions]
        outer = [d_side @ solution.mT for d_side, solution in zip(d_right, solutions, strict=True)]
        return functools.reduce(torch.Tensor.add_, outer).neg_().tril_(-1), *d_right


def unit_lower_inverse(below: Tensor) -> Tensor:
    """The inverse of I + what is below the diagonal of `below` `[..., C, C]`."""
    inverse: Tensor = _UnitLowerInverse.apply(below)  # type: ignore[no-untyped-call]
    return inverse


class _UnitLowerInverse(torch.autograd.Function):
    """By one substitution, and backward by two products."""

    @staticmethod
    def forward(ctx: Any, below: Tensor) -> Tensor:
        inverse = _inverse(below)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        d_below: Tensor = (inverse.mT @ grad @ inverse.mT).neg_().tril_(-1)
        return d_below


def _inverse(below: Tensor) -> Tensor:
    eye = torch.eye(below.shape[-1], dtype=below.dtype, device=below.device).expand_as(below)
    inverse: Tensor = torch.linalg.solve_triangular(below, eye, upper=False, unitriangular=True)
    return inverse
