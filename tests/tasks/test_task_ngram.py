"""ngram: the Bayes predictor is the one of the counts, and what is told of a model is told against it."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import log

import numpy as np
import pytest

from archsearch.errors import OptionsError
from archsearch.tasks import IGNORE, Batch
from archsearch.tasks.ngram import Ngram

SMALL = {"n": 3, "symbols": 3, "alpha": 0.2, "seq_len": 30}


def rows(task: Ngram, count: int) -> Batch:
    return task.draw(np.random.default_rng(5), count, split="train", label="")


def test_the_bayes_predictor_counts_what_followed_the_same_context() -> None:
    task = Ngram.make(None, SMALL)
    batch = rows(task, 20)
    found = task.bayes(batch)
    for row, tokens in enumerate(batch.tokens.tolist()):
        counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for place in range(1, 30):
            context, target = tuple(tokens[place - 1 : place + 1]), int(batch.targets[row, place])
            here, seen = counts[context], counts[context].total()
            assert found.seen[row, place] == seen
            assert found.nll[row, place] == pytest.approx(-log((here[target] + 0.2) / (seen + 0.6)))
            best = [token for token in range(3) if here[token] == max(here.values(), default=0)]
            assert found.likeliest[row, place] == (best[0] if len(best) == 1 else IGNORE)
            here[target] += 1


def test_the_first_token_of_a_context_is_not_scored() -> None:
    batch = rows(Ngram.make(None, SMALL), 4)
    assert (batch.targets[:, 0] == IGNORE).all()
    assert batch.scored[:, 1:].all()
    assert rows(Ngram.make("bigram"), 4).scored.all()


def test_the_best_predictor_scores_one_and_diverges_from_itself_by_nothing() -> None:
    task = Ngram.make("bigram")
    batch = task.evaluation("validation")[""]
    best = task.bayes(batch)
    found = task.metrics("", batch, nll=best.nll, predictions=best.likeliest)
    assert found.pop("kl") == 0.0
    assert set(found) == {"accuracy", "accuracy[seen once]", "accuracy[seen 2-4]", "accuracy[seen 5+]"}
    assert set(found.values()) == {1.0}


def test_who_knows_the_language_beats_the_predictor_and_who_knows_nothing_is_far_from_it() -> None:
    """The mean surprise of the Bayes predictor is as large as it says, so that `kl` is a divergence."""
    task = Ngram.make("trigram")
    batch = task.evaluation("test")[""]
    best = task.bayes(batch)
    uniform = np.where(batch.scored, log(task.vocab_size), 0.0)
    found = task.metrics("", batch, nll=uniform, predictions=best.likeliest)
    above = uniform[batch.scored].mean() - best.nll[batch.scored].mean()
    assert found["kl"] == pytest.approx(above)
    assert found["kl"] > 0.5


def test_a_window_knows_less_than_the_whole_sequence() -> None:
    """Else a sliding window would do, and the task would tell nothing."""
    task = Ngram.make("bigram")
    batch = task.evaluation("validation")[""].take(slice(0, 100))
    best, length = task.bayes(batch), batch.tokens.shape[1]
    hits = total = 0
    for place in range(64, length):
        window = Batch(batch.tokens[:, place - 8 : place + 1], batch.targets[:, place - 8 : place + 1])
        near = task.bayes(window).likeliest[:, -1]
        sure = best.likeliest[:, place] != IGNORE
        hits, total = hits + int((near == best.likeliest[:, place])[sure].sum()), total + int(sure.sum())
    assert hits / total < 0.45


@pytest.mark.parametrize(
    ("options", "told"), [({"n": 8}, "lower n or symbols"), ({"n": 8, "symbols": 2, "seq_len": 8}, "raise seq_len")]
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(OptionsError, match=told):
        Ngram.make(None, options)
