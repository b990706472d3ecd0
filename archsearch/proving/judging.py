"""Judging: a kernel's outputs and gradients beside its reference's, and what it must not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from archsearch.proving.compare import FULL, OUTPUT, Verdict, judge, limit_of, worst

Tensors: TypeAlias = Mapping[str, Tensor]
Op: TypeAlias = Callable[[Tensors], tuple[Tensor, ...]]

FLOOR = 0.1
"""The least root mean square that a reference counts with."""

LEAST_DECIDED = 0.5
"""Share of the rows whose choice of blocks must be clear, for a comparison to say something."""


def compare(
    kernel: Op,
    reference: Op,
    inputs: Tensors,
    *,
    trained: Iterable[str] = (),
    decided: Tensor | None = None,
    exact: torch.dtype = torch.float64,
) -> Verdict:
    """Every output, and the gradient of every input in `trained`, beside those of the reference in `exact`, within the
    limits of the narrowest dtype among the inputs.

    ``decided`` `[B, T, H]` is 0 for the rows of the first output whose choice of blocks rounding may move: they are
    left out, and most must be in.
    """
    trained = list(trained)
    if decided is not None and decided.float().mean() < LEAST_DECIDED:
        return Verdict(error=0.0, fault="too few rows whose choice of blocks is clear")
    wide = {name: x.to(exact) if x.is_floating_point() else x for name, x in inputs.items()}
    low = any(x.element_size() < 4 for x in inputs.values() if x.is_floating_point())
    found, found_grads = _run(kernel, inputs, trained, decided, low)
    wanted, wanted_grads = _run(reference, wide, trained, decided, low)
    if len(found) != len(wanted):
        return Verdict(error=0.0, fault=f"{len(found)} outputs, the reference has {len(wanted)}")
    verdicts = [
        judge(f"output {n}", a, b, OUTPUT if low else FULL, floor=FLOOR)
        for n, (a, b) in enumerate(zip(found, wanted, strict=True))
    ]
    for name, grad, right in zip(trained, found_grads, wanted_grads, strict=True):
        verdicts.append(judge(f"d_{name}", grad, right, limit_of(name) if low else FULL, floor=FLOOR))
    return worst(verdicts)


def _run(
    op: Op, inputs: Tensors, trained: list[str], decided: Tensor | None, low: bool
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    leaves = {name: x.detach().clone().requires_grad_(name in trained) for name, x in inputs.items()}
    with torch.set_grad_enabled(bool(trained)):
        outputs = list(op(leaves))
    if decided is not None:
        outputs[0] = outputs[0] * decided[..., None].to(outputs[0].dtype)
    if not trained:
        return outputs, ()
    device = outputs[0].device
    draw = torch.Generator(device).manual_seed(7)
    rounded = torch.bfloat16 if low else torch.float32
    grads = [torch.randn(x.shape, generator=draw, device=device).to(rounded).to(x.dtype) for x in outputs]
    return [x.detach() for x in outputs], torch.autograd.grad(outputs, [leaves[name] for name in trained], grads)


def future_unseen(kernel: Op, inputs: Tensors, changed: Iterable[str], token: int) -> Verdict:
    """A change from one token on leaves the outputs `[B, T, ...]` before it bitwise as they were, and changes its
    own."""
    other = {name: x.clone() for name, x in inputs.items()}
    for name in changed:
        other[name][:, token:] = inputs[name][:, token:].flip(-1)  # as long as before: the delta rule needs such keys
    with torch.no_grad():
        before, after = kernel(inputs)[0], kernel(other)[0]
    if not torch.equal(before[:, :token], after[:, :token]):
        return Verdict(error=0.0, fault=f"a change of token {token} changes what comes before it")
    seen = not torch.equal(before[:, token:], after[:, token:])
    return Verdict(error=0.0, fault="" if seen else f"a change of token {token} changes nothing")


def near(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> Verdict:
    """Each number of a tensor within `tolerance` of its reference's, by the larger of 1 and its size."""
    off = (actual.double() - expected.double()).abs() / expected.double().abs().clamp(min=1.0)
    largest = float(off.max()) if bool(actual.isfinite().all()) else float("inf")
    return Verdict(error=largest, fault="" if largest <= tolerance else f"{name} is off by {largest:.2g}")
