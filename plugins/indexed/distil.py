"""Distillation: a scorer learns to put its blocks as attention weighs their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from archsearch.ops.divergence import Piecewise, block_mass
from archsearch.ops.divergence import divergence as of_blocks

from .choice import candidates
from .options import Rule


def divergence(
    score: Piecewise,
    leaves: Sequence[Tensor],
    target: Callable[[slice], Tensor],
    positions: Tensor,
    rule: Rule,
    *,
    chosen: bool,
) -> Tensor:
    """`archsearch.ops.divergence.divergence` over the candidates of queries at `positions` `[B, T]`, or those that are
    ``chosen``.

    ``target(part)`` `[B, 1 or Hc, t, S]` weighs the keys up to the end of the slice; a block has the sum over its keys.
    """

    def mass(part: slice, blocks: int) -> Tensor:
        return block_mass(target(part), rule.block_size, blocks)

    def allowed(part: slice, blocks: int) -> Tensor:
        return candidates(positions[:, part], blocks, rule)

    return of_blocks(score, leaves, mass, allowed, positions.shape[1], best=rule.top_k if chosen else 0)
