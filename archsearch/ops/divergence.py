"""Distillation of an index: its scores learn to put blocks as attention weighs them, queries a piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.index_scores import best_mask
from archsearch.ops.pieces import pieces
from archsearch.ops.softmax import scale_of

LONGEST = 128
"""Queries of a piece at most, so that what comes after them is left out."""
Piecewise = Callable[..., Tensor]
"""Scores `[B, Hc, t, n]` of a slice of queries, from the tensors that the scores are made of."""
OfBlocks = Callable[[slice, int], Tensor]
"""A tensor `[B, 1 or Hc, t, n]` of a slice of queries and the first n blocks."""


def divergence(
    score: Piecewise, leaves: Sequence[Tensor], mass: OfBlocks, allowed: OfBlocks, tokens: int, *, best: int = 0
) -> Tensor:
    """Sum over queries of KL(mass || softmax of the scores) over the blocks that a query is `allowed`, or the ``best``
    so many of them by score, 0 for all; the mean over choosers.

    ``score(part, *leaves)`` gives scores of a slice of `tokens` queries; gradients reach `leaves` alone, of which the
    first is `[B, T, heads, ...]` and the second has what is scored in axis 1; they are made with the value, so that no
    more than one piece is held. ``mass`` of what is allowed is scaled to a sum of 1 or, where none falls on it, counts
    nothing. DeepSeek-V3.2, arXiv 2512.02556, equation 3, and with `best` equation 4.
    """

    def loss(part: slice, *tensors: Tensor) -> Tensor:
        scores = score(part, *tensors)
        within = allowed(part, scores.shape[-1])
        if best:
            within = best_mask(scores.detach().masked_fill(~within, -torch.inf), best)
        return _divergence(scores, mass(part, scores.shape[-1]), within)

    held = leaves[0].shape[0] * leaves[0].shape[2] * (leaves[1].shape[1] + 1)
    value: Tensor = _WithGradients.apply(loss, pieces(tokens, held, longest=LONGEST), *leaves)  # type: ignore[no-untyped-call]
    return value


def _divergence(scores: Tensor, mass: Tensor, allowed: Tensor) -> Tensor:
    mass = mass.masked_fill(~allowed, 0.0)
    total = mass.sum(-1, keepdim=True)
    wanted = mass / total.clamp(min=torch.finfo(mass.dtype).tiny)
    learnt = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).log_softmax(-1)
    found: Tensor = (torch.xlogy(wanted, wanted) - wanted * learnt).sum((0, 2, 3)).mean()
    return found


def block_mass(weights: Tensor, block_size: int, blocks: int) -> Tensor:
    """Sums `[..., blocks]` over the keys `[..., S]` of each of the first `blocks`."""
    keys = blocks * block_size
    fitted = F.pad(weights, (0, max(0, keys - weights.shape[-1])))[..., :keys]
    return torch.unflatten(fitted, -1, (blocks, block_size)).sum(-1)


def dense_weights(q: Tensor, k: Tensor, visible: Tensor, choosers: int, scale: float | None = None) -> Tensor:
    """What attention of q `[B, t, Hq, D]` over all that is `visible` `[B, 1, t, S]` weighs, the mean over the heads of
    a chooser; of a query that sees none of k `[B, S, Hkv, D]` nothing that may be used.

    `[B, choosers, t, S]` in float32, without gradients. ``scale`` is D^-0.5 unless given.
    """
    with torch.no_grad():
        grouped = torch.unflatten(q.float(), 2, (k.shape[2], -1))
        logits = torch.einsum("bthgd,bshd->bhgts", grouped, k.float()).flatten(1, 2) * scale_of(q, scale)
        weights = logits.masked_fill(~visible, torch.finfo(logits.dtype).min).softmax(-1)
        return torch.unflatten(weights, 1, (choosers, -1)).mean(2)


class _WithGradients(torch.autograd.Function):
    """The sum of a loss over pieces, with its gradients made beside it, piece by piece."""

    @staticmethod
    def forward(ctx: Any, loss: Callable[..., Tensor], parts: list[slice], *leaves: Tensor) -> Tensor:
        wanted = [index for index, leaf in enumerate(leaves) if ctx.needs_input_grad[index + 2]]
        total = leaves[0].new_zeros((), dtype=torch.promote_types(leaves[0].dtype, torch.float32))
        sums = {index: torch.zeros_like(leaves[index]) for index in wanted}
        for part in parts:
            with torch.set_grad_enabled(bool(wanted)):
                inputs = [leaf.detach().requires_grad_(index in sums) for index, leaf in enumerate(leaves)]
                value = loss(part, *inputs)
                found = torch.autograd.grad(value, [inputs[index] for index in wanted]) if wanted else ()
            for index, gradient in zip(wanted, found, strict=True):
                sums[index] += gradient
            total += value.detach()
        ctx.save_for_backward(*sums.values())
        ctx.wanted, ctx.count = wanted, len(leaves)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = dict(zip(ctx.wanted, ctx.saved_tensors, strict=True))
        return None, None, *(grad.to(found[i].dtype) * found[i] if i in found else None for i in range(ctx.count))
