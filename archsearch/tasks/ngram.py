"""ngram: each sequence is of a random language of its own, which is learned from what was read of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, Task, TaskOptions, at_label, share_by
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.sampling import Ints
from archsearch.tasks.splits import Split

MAX_TABLE = 2**16
"""The most probabilities of a language."""


class NgramOptions(TaskOptions):
    """The languages, and the length of a sequence.

    ``n``: 2 for a language of pairs, in which a token depends on the one before, 3 for one of triples, and so on.
    ``symbols``: tokens of a language.
    ``alpha``: the parameter of the symmetric Dirichlet distribution that what may follow is drawn from: the smaller,
    the fewer tokens are likely.
    ``seq_len``: tokens of a sequence.
    """

    n: int = Field(default=2, ge=2, le=8)
    symbols: int = Field(default=32, ge=2, le=4096)
    alpha: float = Field(default=0.05, ge=1e-3, le=1e3)
    seq_len: int = Field(default=128, ge=8, le=MAX_LENGTH)

    @property
    def contexts(self) -> int:
        """Kinds of what a token depends on."""
        return int(self.symbols ** (self.n - 1))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.contexts * self.symbols > MAX_TABLE:
            raise ValueError(
                f"a language of n = {self.n} over symbols = {self.symbols} has {self.contexts * self.symbols} "
                f"probabilities: at most {MAX_TABLE}: lower n or symbols"
            )
        if self.n >= self.seq_len:
            raise ValueError(f"n = {self.n} leaves seq_len = {self.seq_len} nothing to predict: raise seq_len")
        return self


@dataclass(frozen=True, kw_only=True)
class Bayes:
    """What the best predictor says that knows how languages are drawn, and has read the sequence so far: the chance of
    the ``target`` in nats of surprise, the ``likeliest`` next token, `IGNORE` where several are as likely, and how
    often the context was ``seen`` before; [B, T] each."""

    nll: NDArray[np.float64]
    likeliest: Ints
    seen: Ints


class Ngram(Task):
    """In-context language learning: for each sequence the distribution of the next token, given the ``n - 1`` before,
    is drawn anew, and every token must be predicted from the counts of those that were read.

    The Bayes predictor of these languages is (c(context, token) + alpha) / (c(context) + symbols * alpha), with c the
    counts so far. ``accuracy`` is the share of positions at which the model's likeliest token is that predictor's, of
    those at which it has one: 1 can be reached, and chance is 1 / symbols. ``accuracy[seen once]``, ``[seen 2-4]`` and
    ``[seen 5+]`` are those by how often the context was read before: once, and copying what followed is right; more
    often, and counting is needed. ``kl`` is what the model's surprise is above the Bayes predictor's, in nats a token:
    an unbiased estimate of the divergence from the one to the other, 0 at best but for noise. A language of an n-gram
    in place of the automata of Akyürek et al. 2024, arXiv 2401.12973.
    """

    name: ClassVar[str] = "ngram"
    summary: ClassVar[str] = "a random language of its own in every sequence, learned from its counts"
    options_type: ClassVar[type[TaskOptions]] = NgramOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bigram": {},
        "trigram": {"n": 3, "symbols": 8, "alpha": 0.1},
    }
    default_setting: ClassVar[str] = "bigram"
    recall: ClassVar[bool] = False
    evaluation_rows: ClassVar[Mapping[Literal["validation", "test"], int]] = {"validation": 128, "test": 256}

    options: NgramOptions

    @property
    def vocab_size(self) -> int:
        return self.options.symbols

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.options.symbols

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size = self.options
        weights = rng.gamma(size.alpha, size=(count, size.contexts, size.symbols)) + np.finfo(np.float64).tiny
        upto = weights.cumsum(axis=2)
        upto /= upto[..., -1:]
        tokens = np.empty((count, size.seq_len + 1), dtype=np.int64)
        tokens[:, : size.n - 1] = rng.integers(size.symbols, size=(count, size.n - 1))
        rows, draws = np.arange(count), rng.random((size.seq_len + 1, count, 1))
        for place in range(size.n - 1, size.seq_len + 1):
            context = _contexts(tokens[:, place - size.n + 1 : place], size)[:, 0]
            tokens[:, place] = (draws[place] >= upto[rows, context, :-1]).sum(axis=1)
        targets = tokens[:, 1:].copy()
        targets[:, : size.n - 2] = IGNORE
        return Batch(tokens[:, :-1].copy(), targets)

    def metrics(
        self, label: str, batch: Batch, *, nll: NDArray[np.floating[Any]], predictions: NDArray[np.int64]
    ) -> dict[str, float]:
        """``accuracy`` against the Bayes predictor, the same by how often the context was seen, and ``kl``."""
        best = self.bayes(batch)
        sure = best.likeliest != IGNORE
        hits = Batch(batch.tokens, best.likeliest)
        kinds = {
            "seen once": sure & (best.seen == 1),
            "seen 2-4": sure & (best.seen >= 2) & (best.seen <= 4),
            "seen 5+": sure & (best.seen >= 5),
        }
        above = np.asarray(nll, dtype=np.float64)[batch.scored] - best.nll[batch.scored]
        found = {"accuracy": float((predictions == best.likeliest)[sure].mean()), "kl": float(above.mean())}
        found |= share_by(hits, predictions, kinds)
        return {at_label(name, label): value for name, value in found.items()}

    def bayes(self, batch: Batch) -> Bayes:
        """The best predictor at each scored position; 0 nats, `IGNORE` and 0 elsewhere."""
        size, (rows, length) = self.options, batch.tokens.shape
        context = np.zeros_like(batch.tokens)
        context[:, size.n - 2 :] = _contexts(batch.tokens, size)
        counts = np.zeros((rows, size.contexts, size.symbols), dtype=np.int64)
        nll, seen = np.zeros((rows, length)), np.zeros((rows, length), dtype=np.int64)
        likeliest = np.full((rows, length), IGNORE, dtype=np.int64)
        row = np.arange(rows)
        for place in range(size.n - 2, length):
            here, target = counts[row, context[:, place]], batch.targets[:, place]
            seen[:, place] = here.sum(axis=1)
            chance = (here[row, target] + size.alpha) / (seen[:, place] + size.symbols * size.alpha)
            nll[:, place] = -np.log(chance)
            sure = (here == here.max(axis=1, keepdims=True)).sum(axis=1) == 1
            likeliest[:, place] = np.where(sure, here.argmax(axis=1), IGNORE)
            counts[row, context[:, place], target] += 1
        return Bayes(nll=nll, likeliest=likeliest, seen=seen)


def _contexts(tokens: Ints, size: NgramOptions) -> Ints:
    """The number of the ``n - 1`` tokens that end at each position from the first that has so many: [B, T - n + 2]."""
    width = size.n - 1
    parts = np.lib.stride_tricks.sliding_window_view(tokens, width, axis=1)
    found: Ints = parts @ size.symbols ** np.arange(width)[::-1]
    return found
