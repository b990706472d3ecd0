"""facts: facts about entities stand in the sequence, and questions lead through one or several of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, MAX_WORDS, Task, TaskOptions, share_by
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.sampling import Ints, distinct, shuffled
from archsearch.tasks.splits import Split

ASK = 0


class FactsOptions(TaskOptions):
    """Sizes of a sequence, whose length follows from them.

    ``entities``: entities of a sequence; each has one fact for every relation.
    ``relations``: kinds of relations, at least ``hops``.
    ``hops``: relations of a question, each another one.
    ``questions``: questions of a sequence.
    ``names``: kinds of entities, of which a sequence draws its own.
    """

    entities: int = Field(default=6, ge=2, le=MAX_LENGTH)
    relations: int = Field(default=2, ge=1, le=MAX_LENGTH)
    hops: int = Field(default=2, ge=1, le=MAX_LENGTH)
    questions: int = Field(default=8, ge=1, le=MAX_LENGTH)
    names: int = Field(default=32, ge=2, le=MAX_WORDS)

    @property
    def facts(self) -> int:
        """Facts of a sequence."""
        return self.entities * self.relations

    @property
    def seq_len(self) -> int:
        """Three tokens a fact, then a mark, an entity and ``hops`` relations a question."""
        return 3 * self.facts + self.questions * (2 + self.hops)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.entities > self.names:
            raise ValueError(f"entities = {self.entities} needs as many names, and names = {self.names}: raise names")
        if self.hops > self.relations:
            raise ValueError(
                f"hops = {self.hops} needs as many relations, each another one, and relations = {self.relations}: "
                "raise relations"
            )
        if self.seq_len > MAX_LENGTH:
            raise ValueError(
                f"{self.facts} facts and {self.questions} questions take {self.seq_len} tokens: at most {MAX_LENGTH}"
            )
        return self


class Facts(Task):
    """Facts ``entity relation entity`` in random order, then questions ``? entity relation relation ...``: at each
    relation of a question the model must predict the entity that the relations so far lead to.

    Each number of hops is a metric of its own, ``accuracy[1 hop]``, ``accuracy[2 hops]`` and so on, which may be
    objectives; ``accuracy`` is over all of them, as two layers learn one hop long before they learn two. A relation is
    a permutation of the entities of the sequence, so that every entity is as often an answer as any other and a
    question's last relation alone leaves all of them. Unlike in `multihop`, where an assignment comes after the one
    that it refers to, the facts of a question lie in any order, and every entity has several. After the two-hop
    in-context reasoning of Guo et al. 2025, arXiv 2502.13913, and the compositions of Press et al. 2023, arXiv
    2210.03350. Tokens: a mark before a question, relations, entities.
    """

    name: ClassVar[str] = "facts"
    summary: ClassVar[str] = "questions through one or several facts of the context"
    options_type: ClassVar[type[TaskOptions]] = FactsOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hop1": {"hops": 1, "questions": 12},
        "hop2": {"entities": 4, "names": 8},
        "hop3": {"hops": 3, "relations": 3},
    }
    default_setting: ClassVar[str] = "hop2"

    options: FactsOptions

    @property
    def vocab_size(self) -> int:
        return 1 + self.options.relations + self.options.names

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.options.names

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size = self.options
        names = 1 + size.relations + distinct(rng, count, size.names, size.entities)
        order = np.broadcast_to(np.arange(size.entities), (count * size.relations, size.entities))
        leads = shuffled(rng, order).reshape(count, size.relations, size.entities)
        asked, targets = self._questions(rng, names, leads)
        tokens = np.concatenate([self._told(rng, names, leads), asked], axis=1)
        unscored = np.full((count, 3 * size.facts), IGNORE, dtype=np.int64)
        return Batch(tokens, np.concatenate([unscored, targets], axis=1))

    def _told(self, rng: np.random.Generator, names: Ints, leads: Ints) -> Ints:
        """The facts in random order: [B, 3 * facts]. Entity i of ``names`` [B, entities] has by relation r the fact
        that leads to entity ``leads[:, r, i]``."""
        size, rows = self.options, np.arange(len(names))[:, None]
        turns = shuffled(rng, np.broadcast_to(np.arange(size.facts), (len(names), size.facts)))
        relation, entity = np.divmod(turns, size.entities)
        parts = (names[rows, entity], 1 + relation, names[rows, leads[rows, relation, entity]])
        return np.stack(parts, axis=2).reshape(len(names), -1)

    def _questions(self, rng: np.random.Generator, names: Ints, leads: Ints) -> tuple[Ints, Ints]:
        """Tokens and targets of the questions, [B, questions * (2 + hops)] each."""
        size, count = self.options, len(names)
        rows = np.arange(count)[:, None]
        at = rng.integers(size.entities, size=(count, size.questions))
        through = distinct(rng, count * size.questions, size.relations, size.hops)
        through = through.reshape(count, size.questions, size.hops)
        tokens = np.empty((count, size.questions, 2 + size.hops), dtype=np.int64)
        targets = np.full_like(tokens, IGNORE)
        tokens[..., 0], tokens[..., 1], tokens[..., 2:] = ASK, names[rows, at], 1 + through
        for hop in range(size.hops):
            at = leads[rows, through[..., hop], at]
            targets[..., 2 + hop] = names[rows, at]
        return tokens.reshape(count, -1), targets.reshape(count, -1)

    def breakdown(self, batch: Batch, predictions: NDArray[np.int64]) -> dict[str, float]:
        """``accuracy[1 hop]``, ``accuracy[2 hops]`` and so on."""
        hops = self.hops_of(batch)
        kinds = {f"{hop} hop{'s' * (hop > 1)}": hops == hop for hop in range(1, self.options.hops + 1)}
        return share_by(batch, predictions, kinds)

    def hops_of(self, batch: Batch) -> Ints:
        """How many facts lead to the answer at each scored position, 0 elsewhere: [B, T]."""
        size = self.options
        within = np.maximum(np.arange(2 + size.hops) - 1, 0)
        hops = np.concatenate([np.zeros(3 * size.facts, dtype=np.int64), np.tile(within, size.questions)])
        return np.where(batch.scored, hops, 0)
