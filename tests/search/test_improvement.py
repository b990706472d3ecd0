"""Expected hypervolume improvement: boxes without overlap, sums that are exact, and bounds that are kept."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.analysis.hypervolume import volume
from archsearch.search.improvement import expected_improvement, free_boxes


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_boxes_fill_what_the_front_leaves_and_no_more(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front, edge = rng.random((7, objectives)), np.full(objectives, 1.1)
    low, high = free_boxes(front, edge)
    sizes = np.prod(high - np.maximum(low, 0.0), axis=1)
    assert sizes.sum() == pytest.approx(1.1**objectives - volume(front, edge))
    points = rng.random((200, objectives)) * 1.1
    within = ((points[:, None] > low) & (points[:, None] < high)).all(axis=2).sum(axis=1)
    beaten = (front[None] <= points[:, None]).all(axis=2).any(axis=1)
    assert (within == ~beaten).all()


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_known_point_adds_what_it_dominates_and_an_uncertain_one_its_expectation(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front, edge = rng.random((5, objectives)), np.full(objectives, 1.1)
    mean = rng.random((2, objectives)) * 0.6
    deviation = np.array([[0.0] * objectives, [0.15] * (objectives - 1) + [0.0]])
    found = expected_improvement(mean, deviation, front, edge)
    held = volume(front, edge)
    assert found[0] == pytest.approx(volume(np.vstack([front, mean[0]]), edge) - held)
    drawn = mean[1] + deviation[1] * rng.standard_normal((500, objectives))
    added = [volume(np.vstack([front, point]), edge) - held if (point < edge).all() else 0.0 for point in drawn]
    assert abs(found[1] - np.mean(added)) < 4 * np.std(added) / np.sqrt(len(added))


def test_nothing_is_expected_beyond_what_can_be() -> None:
    front, edge = np.array([[-1.0, 0.5]]), np.array([0.1, 1.1])
    mean, deviation = np.array([[-1.0, 0.8]]), np.array([[0.3, 0.0]])
    ideal = np.array([-1.0, -np.inf])
    assert expected_improvement(mean, deviation, front, edge)[0] > 0.01
    assert expected_improvement(mean, deviation, front, edge, ideal)[0] == pytest.approx(0.0, abs=1e-12)


def test_an_empty_front_leaves_everything() -> None:
    found = expected_improvement(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((0, 2)), np.ones(2))
    assert found[0] == pytest.approx(1.0)
