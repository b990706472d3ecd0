"""mqar: what a sequence looks like, and that it can be solved from its tokens alone."""

from __future__ import annotations

import numpy as np
import pytest

from archsearch.tasks import IGNORE, Batch
from archsearch.tasks.mqar import Mqar

SETTINGS = ["easy", "noisy_update", "capacity", "zoology_64x4", "zoology_128x8", "zoology_256x16"]


def solve(task: Mqar, batch: Batch, *, keep: str = "last") -> np.ndarray:
    """Reads left to right with a dictionary; a key followed by a value is a write, any other key a question."""
    size = task.options
    predictions = np.full_like(batch.tokens, IGNORE)
    for row, tokens in enumerate(batch.tokens.tolist()):
        known: dict[int, int] = {}
        for place, token in enumerate(tokens):
            following = tokens[place + 1] if place + 1 < len(tokens) else 0
            if not 1 <= token <= size.keys:
                continue
            if size.keys < following <= size.keys + size.values:
                known[token] = following if keep == "last" else known.get(token, following)
            else:
                predictions[row, place] = known[token]
    return predictions


def score(task: Mqar, batch: Batch, predictions: np.ndarray) -> dict[str, float]:
    return task.metrics("", batch, nll=np.zeros(batch.tokens.shape), predictions=predictions)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_solver_that_reads_the_tokens_scores_everything(setting: str) -> None:
    task = Mqar.make(setting)
    for batch in (task.evaluation("test")[""], task.train_batch(seed=0, step=1, batch_size=64)):
        predictions = solve(task, batch)
        assert score(task, batch, predictions)["accuracy"] == 1.0
        assert np.array_equal(predictions, batch.targets)


@pytest.mark.parametrize("setting", ["noisy_update", "capacity"])
def test_a_solver_that_keeps_the_first_value_fails_on_rewritten_keys_alone(setting: str) -> None:
    task = Mqar.make(setting)
    batch = task.evaluation("test")[""]
    metrics = score(task, batch, solve(task, batch, keep="first"))
    assert metrics["accuracy[rewritten]"] == 0.0
    assert metrics["accuracy[once]"] == 1.0
    size = task.options
    assert metrics["accuracy"] == pytest.approx(1 - size.rewrites / size.pairs)


def test_noisy_update_has_the_layout_that_is_documented() -> None:
    task = Mqar.make("noisy_update")
    batch = task.evaluation("validation")[""]
    assert (task.vocab_size, task.seq_len, task.chance) == (256, 64, 1 / 64)
    keys = (batch.tokens >= 1) & (batch.tokens <= 63)
    values = (batch.tokens >= 64) & (batch.tokens <= 127)
    assert (keys[:, :40].sum(axis=1) == 12).all()
    assert (values[:, :40].sum(axis=1) == 12).all()
    assert not values[:, 40:].any()
    assert np.array_equal(keys[:, 40:], batch.scored[:, 40:])
    assert not batch.scored[:, :40].any()
    assert (batch.scored.sum(axis=1) == 8).all()
    assert (batch.tokens >= 128).sum() == batch.tokens.size - keys.sum() - values.sum()
    for row in batch.tokens[:, 40:]:
        asked = row[(row >= 1) & (row <= 63)]
        assert len(set(asked.tolist())) == 8


def test_pairs_and_questions_are_found_everywhere_in_their_part() -> None:
    task = Mqar.make("noisy_update")
    batch = task.train_batch(seed=0, step=0, batch_size=2000)
    written = ((batch.tokens >= 64) & (batch.tokens <= 127)).mean(axis=0)
    assert written[0] == 0.0
    assert (written[1:40] > 0.2).all()
    assert (batch.scored.mean(axis=0)[40:] > 0.25).all()


def test_without_noise_pairs_stand_at_the_start_and_gaps_are_padding() -> None:
    batch = Mqar.make("easy").evaluation("validation")[""]
    assert (batch.tokens[:, :16] > 0).all()
    assert (batch.tokens[:, 16:][~batch.scored[:, 16:]] == 0).all()


def test_zoology_has_its_vocabulary() -> None:
    task = Mqar.make("zoology_1024x256")
    assert (task.vocab_size, task.seq_len) == (8192, 1024)
    assert task.train_batch(seed=0, step=0, batch_size=2).scored.sum() == 512
