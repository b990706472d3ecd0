"""multihop: variables are set from one another, and the value at the root of the chain is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, MAX_WORDS, Task, TaskOptions, at_label, share, share_by
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.sampling import Ints, distinct, shuffled, starts
from archsearch.tasks.splits import Split

PAD, SET, ASK = range(3)


class MultihopOptions(TaskOptions):
    """Sizes of a sequence: chains of assignments, with noise in every gap.

    ``seq_len``: tokens of a sequence.
    ``hops``: assignments of a chain.
    ``chains``: chains that are asked.
    ``distractors``: chains alike that are not asked.
    ``variables``: kinds of variables.
    ``values``: kinds of values.
    ``noise_tokens``: kinds of noise; with none, gaps hold token 0.
    """

    seq_len: int = Field(default=96, ge=5, le=MAX_LENGTH)
    hops: int = Field(default=2, ge=1, le=MAX_LENGTH)
    chains: int = Field(default=4, ge=1, le=MAX_LENGTH)
    distractors: int = Field(default=2, ge=0, le=MAX_LENGTH)
    variables: int = Field(default=64, ge=1, le=MAX_WORDS)
    values: int = Field(default=64, ge=2, le=MAX_WORDS)
    noise_tokens: int = Field(default=64, ge=0, le=MAX_WORDS)

    @property
    def asked(self) -> int:
        """Number of questions."""
        return self.chains * self.hops

    @property
    def written(self) -> int:
        """Positions before the questions."""
        return self.seq_len - 2 * self.asked

    @model_validator(mode="after")
    def _check(self) -> Self:
        statements = (self.chains + self.distractors) * self.hops
        if statements > self.variables:
            raise ValueError(
                f"{self.chains + self.distractors} chains of {self.hops} hops need {statements} variables, "
                f"and variables = {self.variables}: raise variables"
            )
        if 3 * statements > self.written:
            raise ValueError(
                f"{statements} assignments take {3 * statements} positions and {self.asked} questions "
                f"{2 * self.asked}: more than seq_len = {self.seq_len}, raise it"
            )
        return self


class Multihop(Task):
    """Variable tracking: ``x1 = v``, ``x2 = x1``, ... in that order, the chains interleaved among noise; then every
    variable of the asked chains is asked, in random order, and the model must predict its root value at the name.

    The k-th variable of a chain takes k hops. ``accuracy`` is that of the full ``hops``; shorter questions are asked
    because they teach, and are reported as ``accuracy[1 hop]`` and so on. Tokens: padding, a mark before an
    assignment, a mark before a question, variables, values, noise. After RULER's variable tracking (Hsieh et al.
    2024, arXiv 2404.06654, section 3.2).
    """

    name: ClassVar[str] = "multihop"
    summary: ClassVar[str] = "variables tracked through chains of assignments"
    options_type: ClassVar[type[TaskOptions]] = MultihopOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hop1": {"hops": 1, "chains": 8, "distractors": 4},
        "hop2": {},
        "hop4": {"hops": 4, "chains": 3, "distractors": 1, "seq_len": 128},
    }
    default_setting: ClassVar[str] = "hop2"

    options: MultihopOptions

    @property
    def vocab_size(self) -> int:
        return 3 + self.options.variables + self.options.values + self.options.noise_tokens

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.options.values

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size = self.options
        chains = size.chains + size.distractors
        names = 3 + distinct(rng, count, size.variables, chains * size.hops).reshape(count, chains, size.hops)
        values = 3 + size.variables + rng.integers(size.values, size=(count, chains))
        sources = np.concatenate([values[..., None], names[..., :-1]], axis=2)
        tokens = self._background(rng, count)
        targets = np.full_like(tokens, IGNORE)
        rows = np.arange(count)[:, None]
        places = self._places(rng, count)
        for offset, part in enumerate((np.full_like(names, SET), names, sources)):
            tokens[rows, places + offset] = part.reshape(count, -1)
        turns = shuffled(rng, np.broadcast_to(np.arange(size.asked), (count, size.asked)))
        asked = size.written + 2 * turns
        tokens[rows, asked] = ASK
        tokens[rows, asked + 1] = names[:, : size.chains].reshape(count, -1)
        targets[rows, asked + 1] = np.repeat(values[:, : size.chains], size.hops, axis=1)
        return Batch(tokens, targets)

    def _background(self, rng: np.random.Generator, count: int) -> Ints:
        size = self.options
        if not size.noise_tokens:
            return np.full((count, size.seq_len), PAD, dtype=np.int64)
        return 3 + size.variables + size.values + rng.integers(size.noise_tokens, size=(count, size.seq_len))

    def _places(self, rng: np.random.Generator, count: int) -> Ints:
        """Where each assignment begins, chain by chain, those of one chain in order: [B, chains * hops]."""
        size = self.options
        chains = size.chains + size.distractors
        statements = chains * size.hops
        turns = shuffled(rng, np.broadcast_to(np.arange(statements), (count, statements)))
        in_order = np.sort(turns.reshape(count, chains, size.hops), axis=2).reshape(count, statements)
        return np.take_along_axis(starts(rng, count, size.written, statements, 3), in_order, axis=1)

    def metrics(
        self, label: str, batch: Batch, *, nll: NDArray[np.floating[Any]], predictions: NDArray[np.int64]
    ) -> dict[str, float]:
        """``accuracy`` of the questions of all the hops, and ``accuracy[1 hop]``, ``accuracy[2 hops]`` ... ."""
        hops = self.hops_of(batch)
        kinds = {f"{hop} hop{'s' * (hop > 1)}": hops == hop for hop in range(1, self.options.hops + 1)}
        found = {"accuracy": share(batch, predictions, hops == self.options.hops)}
        found |= share_by(batch, predictions, kinds)
        return {at_label(name, label): value for name, value in found.items()}

    def hops_of(self, batch: Batch) -> Ints:
        """How many assignments lead from the root to the variable of each question, 0 elsewhere: [B, T]."""
        tokens, rows = batch.tokens, np.arange(len(batch.tokens))
        own, names = np.unique(tokens + self.vocab_size * rows[:, None], return_inverse=True)
        names = names.reshape(tokens.shape)  # a number for each token of each row, so that memory follows the batch
        depth = np.zeros(len(own), dtype=np.int64)
        places = np.nonzero(tokens == SET)[1].reshape(len(tokens), -1)
        for place in places.T:
            depth[names[rows, place + 1]] = 1 + depth[names[rows, place + 2]]
        return np.where(batch.scored, depth[names], 0)
