"""facts: answers follow from the facts alone, whatever their order, and the hops are told right."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.errors import OptionsError
from archsearch.tasks import IGNORE, Batch
from archsearch.tasks.facts import ASK, Facts


def solve(task: Facts, batch: Batch, *, hops: int = 99) -> np.ndarray:
    """Reads the facts of each row and follows at most `hops` of them."""
    size, predictions = task.options, np.full_like(batch.tokens, IGNORE)
    for row, tokens in enumerate(batch.tokens.tolist()):
        facts = {tuple(tokens[at : at + 2]): tokens[at + 2] for at in range(0, 3 * size.facts, 3)}
        assert len(facts) == size.facts, "an entity has two facts of one relation"
        for at in range(3 * size.facts, len(tokens), 2 + size.hops):
            assert tokens[at] == ASK
            entity = tokens[at + 1]
            for hop, relation in enumerate(tokens[at + 2 : at + 2 + size.hops]):
                entity = facts[entity, relation] if hop < hops else entity
                predictions[row, at + 2 + hop] = entity
    return predictions


def score(task: Facts, batch: Batch, predictions: np.ndarray) -> dict[str, float]:
    return task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)


@pytest.mark.parametrize("setting", Facts.settings)
def test_a_solver_that_reads_the_facts_scores_everything(setting: str) -> None:
    task = Facts.make(setting)
    batch = task.evaluation("validation")[""]
    predictions = solve(task, batch)
    assert np.array_equal(predictions, batch.targets)
    assert set(score(task, batch, predictions).values()) == {1.0}


def test_each_number_of_hops_is_a_metric_and_accuracy_is_over_all() -> None:
    task = Facts.make("hop3")
    batch = task.evaluation("validation")[""]
    found = score(task, batch, solve(task, batch, hops=2))
    assert (found["accuracy[1 hop]"], found["accuracy[2 hops]"]) == (1.0, 1.0)
    assert found["accuracy[3 hops]"] < 0.3
    assert found["accuracy"] == pytest.approx((2.0 + found["accuracy[3 hops]"]) / 3)


def test_a_question_takes_another_relation_each_time_and_a_relation_alone_tells_nothing() -> None:
    task = Facts.make("hop3")
    size = task.options
    batch = task.evaluation("validation")[""]
    asked = batch.tokens[:, 3 * size.facts :].reshape(len(batch.tokens), size.questions, 2 + size.hops)
    through = np.sort(asked[..., 2:], axis=2)
    assert (np.diff(through, axis=2) > 0).all()
    told = batch.tokens[:, : 3 * size.facts].reshape(len(batch.tokens), size.facts, 3)
    for row in told[:20]:
        for relation in range(1, 1 + size.relations):
            mine = row[row[:, 1] == relation]
            assert set(mine[:, 0]) == set(mine[:, 2])
            assert len(mine) == size.entities


def test_facts_lie_in_any_order() -> None:
    task = Facts.make("hop2")
    size = task.options
    batch = task.evaluation("validation")[""]
    relations = batch.tokens[:, 1 : 3 * size.facts : 3]
    assert ((relations[:, 0] == 1).mean()) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"entities": 9, "names": 8}, "raise names"),
        ({"hops": 3}, "raise relations"),
        ({"entities": 2**20, "names": 2**20, "relations": 8}, "at most"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(OptionsError, match=told):
        Facts.make("hop2", options)
