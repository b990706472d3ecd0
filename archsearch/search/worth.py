"""What candidates are thought to be worth: expected improvement of the hypervolume, every level of cost counting."""

from __future__ import annotations

import numpy as np

from archsearch.analysis.front import Mask, non_dominated
from archsearch.analysis.objectives import Values
from archsearch.search.improvement import expected_improvement

MOST_WEIGHED = 512
"""Candidates that expected improvement is worked out for where there are more than two objectives."""
_MARGIN, _MARGIN_OF_COSTS = 0.1, 0.3
"""How far beyond the worst the reference point lies, of ranges."""


def worth(mean: Values, deviation: Values, losses: Values, costs: Mask, ideal: Values) -> Values:
    """`[m]`: the worth of candidates whose losses are thought to be normal with `mean` and `deviation` `[m, d]`, beside
    what was measured, `losses` `[n, d]`, at least two of them; of equal worth the more uncertain one has a trifle more.

    ``costs`` `[d]` says which objectives are known exactly, ``ideal`` `[d]` the least loss that can be. Each objective
    is scaled to its range, and a cost counts half by that, half by the share of candidates that cost less, with room
    beyond the dearest: by bytes and FLOPs alone, what has the dearest layer lies at the end of both, dominates next to
    nothing there, and is not looked at before all that is cheap.
    """
    mean, losses = mean.copy(), losses.copy()
    for index in np.flatnonzero(costs):
        every = np.sort(np.concatenate([mean[:, index], losses[:, index]]))
        mean[:, index], losses[:, index] = _evened(mean[:, index], every), _evened(losses[:, index], every)
    worst = np.where(costs, np.maximum(losses.max(axis=0), mean.max(axis=0)), losses.max(axis=0))
    best = np.where(costs, np.minimum(losses.min(axis=0), mean.min(axis=0)), losses.min(axis=0))
    scale = np.where(worst > best, worst - best, 1.0)
    mean, deviation, losses = (mean - best) / scale, deviation / scale, (losses - best) / scale
    edge = np.where(worst > best, 1.0, 0.0) + np.where(costs, _MARGIN_OF_COSTS, _MARGIN)
    uncertain = deviation.sum(axis=1)
    found: Values = 1e-9 * uncertain / max(float(uncertain.max()), 1e-300)
    weighed = np.arange(len(mean))
    if mean.shape[1] > 2 and len(mean) > MOST_WEIGHED:
        weighed = most_hopeful((mean - deviation).clip(max=edge), MOST_WEIGHED)
    least = np.where(costs, -np.inf, (ideal - best) / scale)
    found[weighed] += expected_improvement(mean[weighed], deviation[weighed], losses, edge, least)
    return found


def most_hopeful(losses: Values, count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The places of `count` rows of `losses` `[n, d]`: the front, what would be the front without it, and so on, so
    that every end of it is among them; of the last one that there is room for, the first rows."""
    left, taken = np.arange(len(losses)), np.zeros(0, dtype=np.intp)
    while len(taken) < count and len(left):
        ahead = non_dominated(losses[left])
        taken, left = np.concatenate([taken, left[ahead]]), left[~ahead]
    return taken[:count]


def _evened(values: Values, every: Values) -> Values:
    """The mean of where values lie in the range of `every` (ascending), and of the share of it that is less than each,
    what is equal counting half."""
    less = (np.searchsorted(every, values, "left") + np.searchsorted(every, values, "right")) / 2
    found: Values = ((values - every[0]) / max(every[-1] - every[0], 1e-300) + less / len(every)) / 2
    return found
