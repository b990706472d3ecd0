"""BenchOp: an op as a plugin offers it for measuring; Peer: somebody else's implementation of the same function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from archsearch.bench.results.work import Shape, Work
from archsearch.kernels.launches import StandIn

Inputs: TypeAlias = Mapping[str, Tensor]
Outputs: TypeAlias = tuple[Tensor, ...]

QUICK, FULL, TINY = "quick", "full", "tiny"
"""Grids: about two minutes on an H200, all of them, and what a laptop runs in seconds."""

_FEW_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random inputs on one device in one dtype, signed and reproducible."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator

    @classmethod
    def on(cls, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Draw:
        """With a generator of its own on the device."""
        return cls(device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(seed))

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=dtype or self.dtype)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform float32 numbers."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another implementation. ``prepare`` imports it and makes what belongs to a shape and not to a call (masks); it
    gives the function to be timed, and its name with a version. Whatever it raises is shown as the reason why there
    is no figure. ``reference`` and ``work`` are those of its own where the peer computes another function."""

    name: str
    prepare: Callable[[Inputs], tuple[str, Callable[[Inputs], Outputs]]]
    reference: Callable[[Inputs], Outputs] | None = None
    work: Callable[[Shape, int], Work] | None = None


@dataclass(frozen=True, kw_only=True)
class BenchOp:
    """An op over whole sequences, or over one new token a sequence where ``step``.

    ``inputs`` draws the tensors of a shape by name; those in ``trained`` get gradients. ``run(inputs, impl)`` gives
    the outputs, ``reference`` the same for inputs in float32. ``work(shape, element_bytes)`` is the least of a
    forward pass. ``head_axes`` names the axis of heads of each tensor that has one, so that the reference can run on
    one group of heads. ``agreeing`` is the share of the outputs' rows that must agree with the reference, below 1 where
    the op ranks blocks, so that rounding moves some choices. ``forms``: the implementations that are measured on a
    CUDA device and elsewhere. ``stand_ins`` fill what kernels choose where launches are listed and none is run.
    ``table`` is the op of the table whose kernels run, where they can be tuned by it, and ``width`` what its rows go by
    where that is not the head dim; ``others`` are the tables of further kernels that run, with what their rows go by.
    """

    name: str
    step: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    grids: Mapping[str, Sequence[Shape]]
    inputs: Callable[[Shape, Draw], dict[str, Tensor]]
    run: Callable[[Inputs, str], Outputs]
    reference: Callable[[Inputs], Outputs]
    work: Callable[[Shape, int], Work]
    trained: Sequence[str] = ()
    head_axes: Mapping[str, int]
    agreeing: float = 1.0
    forms: tuple[str, str] = ("triton", "chunkwise")
    table: str = ""
    width: int | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    peers: Sequence[Peer] = ()
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)

    @property
    def phases(self) -> tuple[str, ...]:
        """What is measured of it."""
        if self.step:
            return ("decode",)
        return ("forward", "forward+backward") if self.trained else ("forward",)

    def row_width(self, head_dim: int) -> int:
        """What the op's row in its table goes by, for a shape of that head dim."""
        return head_dim if self.width is None else self.width

    def rows(self, head_dim: int) -> dict[str, int]:
        """By the op of each table whose kernels run what its row goes by, for a shape of that head dim."""
        return ({self.table: self.row_width(head_dim)} if self.table else {}) | dict(self.others)

    def group(self, inputs: Inputs, shape: Shape, index: int) -> dict[str, Tensor]:
        """The inputs of one key head and of the query heads that share it, in float32 where they are floating."""
        return {name: _wide(self._cut(name, x, shape, index)) for name, x in inputs.items()}

    def output_group(self, output: Tensor, shape: Shape, index: int) -> Tensor:
        """The same part of an output, whose heads stand at axis 1 of a step's and at axis 2 of a sequence's."""
        return cut_heads(output, 1 if self.step else 2, shape.kv_heads, index)

    def grad_group(self, name: str, grad: Tensor, shape: Shape, index: int) -> Tensor:
        """The same part of an input's gradient."""
        return self._cut(name, grad, shape, index)

    def _cut(self, name: str, x: Tensor, shape: Shape, index: int) -> Tensor:
        axis = self.head_axes.get(name)
        return x if axis is None else cut_heads(x, axis, shape.kv_heads, index)


def cut_heads(x: Tensor, axis: int, groups: int, index: int) -> Tensor:
    """Of the heads along `axis` the part that belongs to one of `groups` key heads."""
    share = x.shape[axis] // groups
    return x.narrow(axis, index * share, share)


def reference_form(inputs: Inputs) -> str:
    """The implementation that a reference in float32 runs: the explicit one on few tokens; on many, where it does not
    fit, the chunkwise one in PyTorch, which the tests hold to it."""
    return "reference" if inputs["q"].shape[1] <= _FEW_TOKENS else "chunkwise"


def _wide(x: Tensor) -> Tensor:
    return x.detach().float() if x.is_floating_point() else x
