"""What a layer under an index makes of its tokens, reads of its cache, and hands to later layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from archsearch.model import MixerState
from archsearch.ops.divergence import Piecewise

from .choice import Choice


@dataclass(frozen=True, kw_only=True)
class Made:
    """What is made of the tokens ``x`` `[B, T, D]` at ``positions`` `[B, T]` apart from each other: ``low``, what their
    queries come from, ``q`` `[B, T, Hq, D]`, and the ``rows`` `[B, T, ...]` that the cache keeps of them; ``near``
    `[B, T, Hkv, D]`: their keys as the window meets them, where these are others."""

    x: Tensor
    low: Tensor
    positions: Tensor
    q: Tensor
    rows: dict[str, Tensor]
    near: Tensor | None = None

    def part(self, span: slice) -> Made:
        """Of some of the tokens."""
        x, low, positions, q = (one[:, span] for one in (self.x, self.low, self.positions, self.q))
        rows = {name: one[:, span] for name, one in self.rows.items()}
        near = None if self.near is None else self.near[:, span]
        return Made(x=x, low=low, positions=positions, q=q, rows=rows, near=near)


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What a layer hands to later ones, of one sequence or batch: its ``choice``, the ``rows`` `[B, S, ...]` that it
    attends to, and the index keys ``units`` `[B, n, I]`; None for what a layer makes itself."""

    choice: Choice | None = None
    rows: dict[str, Tensor] | None = None
    units: Tensor | None = None


NOTHING = Handed()


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """How the scores of an index are made, for what teaches it: ``score(part, *leaves)`` of one sequence or batch."""

    score: Piecewise
    leaves: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What a layer that teaches an index hands to later ones that teach it: one ``of`` each sequence, and the ``loss``
    so far, the mean over so many ``layers``."""

    of: tuple[Lesson, ...]
    loss: Tensor
    layers: int = 1


@dataclass(frozen=True, kw_only=True)
class Read:
    """T tokens at ``order`` `[B, T]` of their sequences: what they ask, and the cache with them.

    ``q`` `[B, T, Hq, D]`; ``k``, ``v`` `[B, S, Hkv, D]` of the rows that are filled; ``asked`` of the scorer, and
    ``units``, what it scores, of the blocks that may be chosen, None where nothing is scored; ``after``: the state
    after them. ``rows``: what k and v were made of; ``given``: what an earlier layer made. ``near``
    `[B, R + T, Hkv, D]`: keys of them and the R tokens before as the window meets them, where these are others.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    asked: tuple[Tensor, ...]
    units: Tensor | None
    order: Tensor
    after: MixerState
    rows: dict[str, Tensor]
    given: Handed
    near: Tensor | None = None
