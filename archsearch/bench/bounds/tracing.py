"""Tracing: what one call of an op launches, listed without a card and without its data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.bench.op import BenchOp, Draw
from archsearch.bench.results.work import Shape
from archsearch.errors import SpecError
from archsearch.kernels.launches import Launch, listed_launches


@dataclass(frozen=True, kw_only=True)
class Blank(Draw):
    """Tensors of the shapes that are drawn, without numbers."""

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """On the meta device."""
        return torch.empty(shape, dtype=dtype or self.dtype, device="meta")

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """On the meta device, float32."""
        return torch.empty(shape, dtype=torch.float32, device="meta")


def trace(op: BenchOp, shape: Shape, phase: str, arch: str) -> list[Launch]:
    """The launches of one call in bfloat16, in order; those of torch itself are not among them.

    Nobody writes the memory of the tensors, so that it costs next to nothing; integers are those that the host lays
    out, and what `BenchOp.stand_ins` puts in the place of a choice. Raises `SpecError` for a phase that the op has not.
    """
    if phase not in op.phases:
        raise SpecError(f"phase {phase}: {op.name} has {', '.join(op.phases)}")
    draw = Blank(device=torch.device("cpu"), dtype=torch.bfloat16, generator=torch.Generator())
    inputs = {name: _unwritten(x) for name, x in op.inputs(shape, draw).items()}
    with listed_launches(arch, op.stand_ins) as found:
        if phase == "forward+backward":
            leaves = {name: x.requires_grad_(name in op.trained) for name, x in inputs.items()}
            out = op.run(leaves, "triton")[0]
            torch.autograd.grad(out, [leaves[name] for name in op.trained], torch.empty_like(out))
        else:
            with torch.no_grad():
                op.run(inputs, "triton")
    return found


def _unwritten(x: Tensor) -> Tensor:
    """Memory for a tensor of the meta device, which no page of is touched; any other as it is."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype) if x.is_meta else x
