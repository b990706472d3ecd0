"""multihop: chains can be followed from the tokens alone, in order, and the hops are told right."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.tasks import IGNORE, Batch
from archsearch.tasks.multihop import ASK, SET, Multihop

SETTINGS = list(Multihop.settings)


def solve(task: Multihop, batch: Batch, *, hops: int = 99) -> np.ndarray:
    """Runs the assignments, following at most `hops` of them for an answer."""
    predictions = np.full_like(batch.tokens, IGNORE)
    for row, tokens in enumerate(batch.tokens.tolist()):
        source: dict[int, int] = {}
        for place, token in enumerate(tokens):
            if token == SET:
                source[tokens[place + 1]] = tokens[place + 2]
            if token == ASK:
                answer = tokens[place + 1]
                for _ in range(hops):
                    answer = source.get(answer, answer)
                predictions[row, place + 1] = answer
    return predictions


def score(task: Multihop, batch: Batch, predictions: np.ndarray) -> dict[str, float]:
    return task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_solver_that_reads_the_tokens_scores_everything(setting: str) -> None:
    task = Multihop.make(setting)
    batch = task.evaluation("test")[""]
    predictions = solve(task, batch)
    assert np.array_equal(predictions, batch.targets)
    assert score(task, batch, predictions)["accuracy"] == 1.0


def test_a_solver_of_two_hops_fails_at_three_and_the_accuracy_is_that_of_the_end() -> None:
    task = Multihop.make("hop4")
    batch = task.evaluation("test")[""]
    assert score(task, batch, solve(task, batch, hops=2)) == {
        "accuracy": 0.0,
        "accuracy[1 hop]": 1.0,
        "accuracy[2 hops]": 1.0,
        "accuracy[3 hops]": 0.0,
        "accuracy[4 hops]": 0.0,
    }


@pytest.mark.parametrize("noise", [0, 64])
def test_a_variable_is_set_once_and_before_it_is_used(noise: int) -> None:
    task = Multihop.make("hop4", {"noise_tokens": noise})
    first_value = 3 + task.options.variables
    for tokens in task.evaluation("validation")[""].tokens.tolist():
        known: set[int] = set()
        places = [place for place, token in enumerate(tokens) if token == SET]
        assert len(places) == 16
        for place in places:
            name, source = tokens[place + 1 : place + 3]
            assert name not in known
            assert source >= first_value or source in known
            known.add(name)


def test_chains_are_interleaved() -> None:
    task = Multihop.make("hop2")
    batch = task.evaluation("validation")[""]
    first_value = 3 + task.options.variables
    sources = batch.tokens[np.nonzero(batch.tokens == SET)[0], np.nonzero(batch.tokens == SET)[1] + 2].reshape(-1, 12)
    roots_first = (sources[:, :6] >= first_value).sum(axis=1)
    assert 3 < roots_first.mean() < 6
    assert len(set(roots_first.tolist())) > 1


def test_every_hop_is_asked_of_every_asked_chain() -> None:
    task = Multihop.make("hop4")
    batch = task.evaluation("validation")[""]
    hops = task.hops_of(batch)
    for hop in (1, 2, 3, 4):
        assert ((hops == hop).sum(axis=1) == 3).all()
