"""niah: needles can be found from the tokens alone, lie where they should, and their depths are told right."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.tasks import IGNORE, Batch, Split
from archsearch.tasks.corpus import load_corpus
from archsearch.tasks.niah import Niah

SETTINGS = list(Niah.settings)


def solve(task: Niah, batch: Batch, *, reach: int = 10**9) -> np.ndarray:
    """Remembers the needles of the last `reach` tokens and spells the one that is asked for."""
    length = task.options.answer_len
    predictions = np.full_like(batch.tokens, IGNORE)
    for row, tokens in enumerate(batch.tokens.tolist()):
        found: dict[int, tuple[int, list[int]]] = {}
        for place, token in enumerate(tokens):
            if token == task.needle_mark:
                found[tokens[place + 1]] = place, tokens[place + 2 : place + 2 + length]
            if token == task.question_mark:
                where, answer = found[tokens[place + 1]]
                if place - where <= reach:
                    predictions[row, place + 1 : place + 1 + length] = answer
    return predictions


def score(task: Niah, batch: Batch, predictions: np.ndarray) -> dict[str, float]:
    return task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("label", ["", "2x"])
def test_a_solver_that_reads_the_tokens_scores_everything(setting: str, label: str) -> None:
    task = Niah.make(setting)
    batch = task.evaluation("test")[label]
    assert batch.tokens.shape[1] == task.seq_len * (2 if label else 1)
    predictions = solve(task, batch)
    assert np.array_equal(predictions, batch.targets)
    assert score(task, batch, predictions)["exact"] == 1.0


def test_a_solver_of_short_reach_misses_the_needles_at_the_start() -> None:
    task = Niah.make("passkey")
    batch = task.evaluation("test")[""]
    metrics = score(task, batch, solve(task, batch, reach=64))
    assert metrics["accuracy[depth 0-25%]"] == 0.0
    assert metrics["accuracy[depth 75-100%]"] == 1.0


@pytest.mark.parametrize(("low", "high", "kept"), [(0.0, 0.25, "0-25%"), (0.75, 1.0, "75-100%")])
def test_depth_options_put_the_needles_there(low: float, high: float, kept: str) -> None:
    task = Niah.make("passkey", {"depth_min": low, "depth_max": high})
    for label, batch in task.evaluation("validation").items():
        where = np.nonzero(batch.tokens == task.needle_mark)[1] / task.options.hay(batch.tokens.shape[1])
        assert low <= where.min() <= where.max() < high
        names = score(task, batch, batch.targets)
        assert [name for name in names if "depth" in name] == [f"accuracy[depth {kept}]"], label


def test_exact_counts_whole_needles() -> None:
    task = Niah.make("number")
    batch = task.evaluation("validation")[""]
    predictions = batch.targets.copy()
    for row in range(len(predictions)):
        predictions[row, np.nonzero(batch.scored[row])[0][1]] = 0
    metrics = score(task, batch, predictions)
    assert metrics["accuracy"] == pytest.approx(15 / 16)
    assert metrics["exact"] == pytest.approx(3 / 4)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_haystack_of_number_is_real_text_of_its_split(split: Split) -> None:
    task = Niah.make("number")
    data = load_corpus((), task.options.max_bytes).parts[split].tobytes()
    train = task.train_batch(seed=0, step=0, batch_size=64)
    batch = train if split == "train" else task.evaluation(split)[""]
    for tokens in batch.tokens.tolist():
        assert bytes(tokens[: tokens.index(task.needle_mark)]) in data
    assert task.data_digest is not None
    assert Niah.make("passkey").data_digest is None
