"""copying: the symbols can be copied from the tokens alone, with and without feedback."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.tasks import IGNORE, Batch
from archsearch.tasks.copying import COPY, Copying

SETTINGS = list(Copying.settings)


def solve(task: Copying, batch: Batch, *, reach: int = 10**9) -> np.ndarray:
    """Collects symbols until the mark, then gives them in order; `reach` is how far back it can see."""
    predictions = np.full_like(batch.tokens, IGNORE)
    for row, tokens in enumerate(batch.tokens.tolist()):
        mark = tokens.index(COPY)
        places = [place for place in range(mark) if 1 <= tokens[place] <= task.options.symbols]
        for number, place in enumerate(places):
            if mark + number - place <= reach:
                predictions[row, mark + number] = tokens[place]
    return predictions


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_solver_that_reads_the_tokens_scores_everything(setting: str) -> None:
    task = Copying.make(setting)
    batch = task.evaluation("test")[""]
    predictions = solve(task, batch)
    assert np.array_equal(predictions, batch.targets)
    assert task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)["accuracy"] == 1.0


def test_a_window_fails() -> None:
    task = Copying.make("standard")
    batch = task.evaluation("test")[""]
    predictions = solve(task, batch, reach=32)
    metrics = task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)
    assert metrics["accuracy"] < 0.2
    assert set(metrics) == {"accuracy", *(f"accuracy[items {part}]" for part in ("1-4", "5-8", "9-12", "13-16"))}


def test_feedback_gives_what_was_due_and_its_absence_gives_nothing() -> None:
    easy, blind = Copying.make("easy"), Copying.make("blind")
    with_feedback, without = easy.evaluation("test")[""], blind.evaluation("test")[""]
    assert np.array_equal(with_feedback.tokens[:, -7:], with_feedback.targets[:, -8:-1])
    assert (without.tokens[:, -8:] == COPY).all()
    assert (with_feedback.tokens[:, -8] == COPY).all()


def test_fewer_items_than_quarters_are_bucketed_one_by_one() -> None:
    task = Copying.make("easy", {"items": 2})
    batch = task.evaluation("validation")[""]
    metrics = task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=batch.targets)
    assert set(metrics) == {"accuracy", "accuracy[items 1-1]", "accuracy[items 2-2]"}
