"""How the kernels are held to their references on the card: in bfloat16, by ratios of root mean squares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from archsearch.bench.compare import OUTPUT, judge, limit_of
from archsearch.kernels import Table, arch_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32
LONG = 65_537 if torch.cuda.is_available() else 100
"""Tokens past 2^16; fewer where the interpreter runs."""

MANY, PACKED = (64, 4000) if torch.cuda.is_available() else (9, 45)
"""Sequences of a packed batch, and their tokens; fewer where the interpreter runs."""


def few(tokens: int, interpreted: int) -> int:
    """`tokens` on a card, `interpreted` where each program takes milliseconds."""
    return tokens if torch.cuda.is_available() else interpreted


FLOOR = 0.1
"""The least root mean square that a reference counts with."""

LEAST_DECIDED = 0.5

Tensors: TypeAlias = Mapping[str, Tensor]
Op: TypeAlias = Callable[[Tensors], tuple[Tensor, ...]]


def rows_of(table: Table) -> list[Any]:
    """The rows of the card's architecture, or of the one that the interpreter stands in for, as parameters."""
    arch = arch_of(DEVICE)
    return [pytest.param(key, id=f"{arch}-D{key[1]}-C{key[2]}") for key in table.rows if key[0] == arch]


def on_card(tensors: Mapping[str, Tensor], low: Iterable[str]) -> dict[str, Tensor]:
    """The tensors on the card, those named in `low` in bfloat16, other floating ones in float32."""
    low = set(low)
    return {
        name: x.detach().to(DEVICE, DTYPE if name in low else torch.float32) if x.is_floating_point() else x.to(DEVICE)
        for name, x in tensors.items()
    }


def uneven(total: int, count: int, seed: int = 0) -> Tensor:
    """Bounds `[count + 1]` of that many packed sequences, of which the second is empty."""
    draw = torch.Generator().manual_seed(seed)
    cuts = torch.randperm(total - 1, generator=draw)[: count - 2].sort().values + 1
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), cuts[:1], cuts, torch.tensor([total])])
    return bounds


def check(
    kernel: Op,
    reference: Op,
    inputs: Tensors,
    *,
    trained: Iterable[str] = (),
    decided: Tensor | None = None,
    exact: torch.dtype = torch.float64,
) -> None:
    """Every output, and the gradient of every input in `trained`, within the limits of bfloat16.

    ``decided`` `[B, T, H]` is 0 for the rows of the first output whose choice of blocks rounding may move: they are
    left out, and most must be in.
    """
    trained = list(trained)
    wide = {name: x.to(exact) if x.is_floating_point() else x for name, x in inputs.items()}
    found, found_grads = _run(kernel, inputs, trained, decided)
    wanted, wanted_grads = _run(reference, wide, trained, decided)
    assert len(found) == len(wanted)
    verdicts = [
        judge(f"output {n}", a, b, OUTPUT, floor=FLOOR) for n, (a, b) in enumerate(zip(found, wanted, strict=True))
    ]
    for name, grad, right in zip(trained, found_grads, wanted_grads, strict=True):
        verdicts.append(judge(f"d_{name}", grad, right, limit_of(name), floor=FLOOR))
    faults = [verdict.fault for verdict in verdicts if verdict.fault]
    assert not faults, "; ".join(faults)


def _run(
    op: Op, inputs: Tensors, trained: list[str], decided: Tensor | None
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    leaves = {name: x.detach().clone().requires_grad_(name in trained) for name, x in inputs.items()}
    with torch.set_grad_enabled(bool(trained)):
        outputs = list(op(leaves))
    if decided is not None:
        assert decided.float().mean() >= LEAST_DECIDED, "too few rows whose choice is clear"
        outputs[0] = outputs[0] * decided[..., None].to(outputs[0].dtype)
    if not trained:
        return outputs, ()
    draw = torch.Generator(DEVICE).manual_seed(7)
    grads = [torch.randn(x.shape, generator=draw, device=DEVICE).to(DTYPE).to(x.dtype) for x in outputs]
    return [x.detach() for x in outputs], torch.autograd.grad(outputs, [leaves[name] for name in trained], grads)


def check_past(kernel: Op, inputs: Tensors, changed: Iterable[str], token: int) -> None:
    """A change of one token leaves the outputs `[B, T, ...]` before it bitwise as they were, and changes its own."""
    other = {name: x.clone() for name, x in inputs.items()}
    for name in changed:
        other[name][:, token:] = inputs[name][:, token:].flip(-1)  # as long as before: the delta rule needs such keys
    with torch.no_grad():
        before, after = kernel(inputs)[0], kernel(other)[0]
    assert torch.equal(before[:, :token], after[:, :token])
    assert not torch.equal(before[:, token:], after[:, token:])
