"""Second seeds: which candidate of the front is trained with one more seed, in place of a new one, and when."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from archsearch.analysis.front import non_dominated
from archsearch.analysis.hypervolume import volume
from archsearch.analysis.objectives import Objectives, Values, signs

_MARGIN = 0.1
"""How far the reference point lies beyond the worst value, as a share of the range."""


class SecondSeeds:
    """The choice between a new candidate and a second seed of one that is known, and what was chosen so far.

    As soon as ``share`` of the trials would allow for one more, and after the first ``start`` of them, from which a
    sampler learns, a point of the front is trained once more: of those that have had no second seed the one without
    which the front would lose most hypervolume. What is best of many by one seed is partly luck, and luck at that point
    hides most: nothing that it wrongly dominates is thought worth a trial. Where all points have had theirs, a new
    candidate is trained; third seeds are left to the confirmation of the front. Values are those of validation, by
    which all of a search is steered.
    """

    def __init__(self, objectives: Objectives, share: float, start: int) -> None:
        self._names = [objective.name for objective in objectives]
        self._signs, self._share, self._start = signs(objectives), share, start
        self._given: set[str] = set()

    def give(self, digest: str) -> None:
        """A candidate is trained with its second seed, or was."""
        self._given.add(digest)

    def has(self, digest: str) -> bool:
        """Whether a candidate was given one."""
        return digest in self._given

    def due(self, trained: int) -> bool:
        """Whether the trial after the first `trained` is to be one, if there is a point to be trained again."""
        return trained >= self._start and len(self._given) < int(self._share * (trained + 1) + 1e-9)

    def choose(self, measured: Mapping[str, Mapping[str, float]]) -> str | None:
        """The digest of the point that is trained again, of the candidates that may stand on a front, by their values;
        None where each point has had its second seed."""
        losses = np.array([[values[name] for name in self._names] for values in measured.values()])
        losses = losses.reshape(len(measured), len(self._names)) * self._signs
        finite = np.isfinite(losses).all(axis=1)
        digests = [digest for digest, known in zip(measured, finite, strict=True) if known]
        losses = losses[finite]
        points = np.flatnonzero(non_dominated(losses))
        left = [int(point) for point in points if digests[point] not in self._given]
        if not left:
            return None
        edge = _edge(losses)
        front = losses[points]
        return digests[max(left, key=lambda point: contribution(losses[point], front, edge))]


def contribution(point: Values, front: Values, edge: Values) -> float:
    """The volume that `point` `[d]` alone dominates below `edge` `[d]`, of a `front` `[n, d]` that it stands on.

    Of what the point dominates, that which the others, moved into it, do not (While, Bradstreet and Barone, "A fast way
    of calculating exact hypervolumes", IEEE Trans. Evol. Comput. 16, 2012, section III). A point that stands there
    twice adds nothing.
    """
    others = np.maximum(front[np.flatnonzero((front != point).any(axis=1))], point)
    if (front == point).all(axis=1).sum() > 1:
        return 0.0
    return float(np.prod(edge - point)) - volume(others[non_dominated(others)], edge)


def _edge(losses: Values) -> Values:
    spread = np.ptp(losses, axis=0)
    edge: Values = losses.max(axis=0) + np.where(spread > 0, _MARGIN * spread, 1.0)
    return edge
