"""state_tracking: the tables are those of the groups, and one thing moved at a time gives the targets."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.tasks import IGNORE
from archsearch.tasks.state_tracking import StateTracking, elements, moves, products

ORDERS = {"s2": 2, "s3": 6, "s5": 120, "a5": 60}


@pytest.mark.parametrize("group", ORDERS)
def test_a_table_of_products_is_that_of_a_group(group: str) -> None:
    table, size = products(group), ORDERS[group]
    assert table.shape == (size, size)
    every = np.arange(size)
    assert np.array_equal(table[0], every)
    assert np.array_equal(table[:, 0], every)
    assert all(np.array_equal(np.sort(row), every) for row in [*table, *table.T])
    a, b, c = np.random.default_rng(0).integers(size, size=(3, 500))
    assert np.array_equal(table[table[a, b], c], table[a, table[b, c]])


def test_only_the_group_of_two_and_no_other_commutes() -> None:
    assert {group: np.array_equal(products(group), products(group).T) for group in ORDERS} == {
        "s2": True,
        "s3": False,
        "s5": False,
        "a5": False,
    }


def test_a5_is_the_even_half_of_s5() -> None:
    """Its elements move none, three (20 cycles), four (15 pairs of swaps) or five (24 cycles)."""
    assert np.unique(moves("a5"), return_counts=True)[1].tolist() == [1, 20, 15, 24]
    assert np.unique(moves("s5"), return_counts=True)[1].tolist() == [1, 10, 20, 45, 44]


@pytest.mark.parametrize("setting", StateTracking.settings)
@pytest.mark.parametrize("label", StateTracking.evaluation_labels)
def test_targets_are_where_the_things_are_after_each_move(setting: str, label: str) -> None:
    """The arrangement is turned by each token in turn, and looked up among the elements."""
    task = StateTracking.make(setting)
    batch, group = task.evaluation("validation")[label], elements(task.options.group)
    assert batch.tokens.shape[1] == task.seq_len * {"": 1, "2x": 2, "4x": 4}[label]
    for tokens, targets in zip(batch.tokens[:4], batch.targets[:4], strict=True):
        arrangement = np.arange(group.shape[1])
        for place, token in enumerate(tokens):
            arrangement = group[token][arrangement]
            scored = not label or place >= task.seq_len
            assert (targets[place] != IGNORE) == scored
            assert not scored or np.array_equal(group[targets[place]], arrangement)


def test_parity_is_that_of_the_ones_so_far() -> None:
    batch = StateTracking.make("parity").evaluation("test")[""]
    assert np.array_equal(batch.targets, batch.tokens.cumsum(1) % 2)


def test_of_swaps_alone_no_token_moves_more_than_two() -> None:
    batch = StateTracking.make("s5_swaps").train_batch(seed=0, step=0, batch_size=64)
    assert set(moves("s5")[batch.tokens].ravel().tolist()) == {0, 2}
    assert set(moves("s5")[batch.targets].ravel().tolist()) == {0, 2, 3, 4, 5}


def test_who_keeps_the_trained_length_alone_has_chance_beyond_it() -> None:
    """Its state begins anew with each stretch of the trained length."""
    task = StateTracking.make("parity")
    for label, batch in task.evaluation("test").items():
        stretches = batch.tokens.reshape(len(batch.tokens), -1, task.seq_len)
        predictions = (stretches.cumsum(2) % 2).reshape(batch.tokens.shape)
        found = task.metrics(label, batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)
        suffix, quarters = f"@{label}" if label else "", {"": (1, 2, 3, 4), "2x": (3, 4), "4x": (2, 3, 4)}[label]
        assert set(found) == {f"accuracy{suffix}", *(f"accuracy[quarter {number}]{suffix}" for number in quarters)}
        assert found[f"accuracy{suffix}"] == pytest.approx(task.chance if label else 1.0, abs=0.03)
