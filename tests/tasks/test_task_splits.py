"""The partition of sequences by hash, and the draws that tasks are made of."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from archsearch.tasks.sampling import distinct, shuffled, starts
from archsearch.tasks.splits import belongs, row_hash


def test_every_row_is_in_exactly_one_split() -> None:
    tokens = np.random.default_rng(0).integers(256, size=(2000, 64))
    owners = np.stack([belongs(tokens, split) for split in ("train", "validation", "test")])
    assert (owners.sum(axis=0) == 1).all()


def test_rows_that_differ_in_one_token_are_dealt_evenly() -> None:
    """A weak hash would send near copies to one part."""
    for place in (0, 31, 63):
        tokens = np.zeros((8192, 64), dtype=np.int64)
        tokens[:, place] = np.arange(8192)
        assert len(set(row_hash(tokens).tolist())) == 8192
        for split in ("validation", "test"):
            assert belongs(tokens, split).mean() == pytest.approx(1 / 16, abs=0.013)


def test_the_hash_sees_the_order_of_tokens() -> None:
    tokens = np.array([[1, 2, 3], [3, 2, 1], [2, 1, 3], [1, 2, 3]])
    first, second, third, fourth = row_hash(tokens).tolist()
    assert first == fourth
    assert len({first, second, third}) == 3


def test_the_hash_is_the_one_that_is_documented() -> None:
    """Written again in plain integers: another hash would move stored sequences from split to split."""
    tokens, mask = [7, 0, 255, 8191], 2**64 - 1
    value = sum((token + 1) * 0x9E3779B97F4A7C15 ** (place + 1) for place, token in enumerate(tokens)) & mask
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
    assert row_hash(np.array([tokens])).tolist() == [value ^ (value >> 31)]


def test_distinct_draws_every_ordered_choice_alike() -> None:
    drawn = Counter(map(tuple, distinct(np.random.default_rng(0), 40_000, 5, 3).tolist()))
    assert len(drawn) == 60
    assert min(drawn.values()) > 667 * 0.8
    assert max(drawn.values()) < 667 * 1.2


def test_distinct_takes_a_whole_pool() -> None:
    assert np.array_equal(np.sort(distinct(np.random.default_rng(0), 9, 7, 7)), np.tile(np.arange(7), (9, 1)))


def test_starts_place_blocks_apart_in_every_way_alike() -> None:
    places = starts(np.random.default_rng(0), 20_000, 7, 2, 3)
    drawn = Counter(map(tuple, places.tolist()))
    assert sorted(drawn) == [(0, 3), (0, 4), (1, 4)]
    assert min(drawn.values()) > 6667 * 0.9
    assert starts(np.random.default_rng(0), 1, 6, 2, 3).tolist() == [[0, 3]]


def test_shuffled_keeps_each_row() -> None:
    values = np.arange(60).reshape(3, 20)
    mixed = shuffled(np.random.default_rng(0), values)
    assert np.array_equal(np.sort(mixed), values)
    assert not np.array_equal(mixed[0] - mixed[0].min(), mixed[1] - mixed[1].min())
