"""The built-in tasks keep the laws of the contract."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from archsearch.tasks import IGNORE, Batch
from archsearch.tasks.copying import Copying
from archsearch.tasks.facts import Facts
from archsearch.tasks.mqar import Mqar
from archsearch.tasks.multihop import Multihop
from archsearch.tasks.ngram import Ngram
from archsearch.tasks.niah import Niah
from archsearch.tasks.state_tracking import StateTracking
from archsearch.tasks.text import Text
from archsearch.testing import TaskConformance


class TestCopying(TaskConformance):
    task = Copying
    cases: ClassVar = {"long": {"seq_len": 200, "items": 3}}


class TestFacts(TaskConformance):
    task = Facts
    cases: ClassVar = {"wide": {"entities": 3, "relations": 5, "hops": 4, "questions": 2}}

    def guesses(self, task: Any, batch: Batch, rng: np.random.Generator) -> NDArray[np.int64]:
        """Any name."""
        return rng.integers(1 + task.options.relations, task.vocab_size, size=batch.targets.shape)


class TestMqar(TaskConformance):
    task = Mqar
    settings = ("easy", "compact", "noisy_update", "capacity", "zoology_64x4", "zoology_256x64")
    cases: ClassVar = {"one-pair": {"seq_len": 16, "pairs": 1, "rewrites": 1}}


class TestMultihop(TaskConformance):
    task = Multihop
    cases: ClassVar = {"no-noise": {"noise_tokens": 0}}

    def answers(self, task: Any, batch: Batch) -> int:
        """Only questions of all the hops are in the metric."""
        return int(batch.scored.sum()) // int(task.options.hops)


class TestNgram(TaskConformance):
    task = Ngram
    cases: ClassVar = {"four": {"n": 4, "symbols": 3, "alpha": 0.3, "seq_len": 40}}

    def answers(self, task: Any, batch: Batch) -> int:
        """Only positions at which the best predictor has a likeliest token are in the metric."""
        return int((task.bayes(batch).likeliest != IGNORE).sum())


class TestNiah(TaskConformance):
    task = Niah


class TestStateTracking(TaskConformance):
    task = StateTracking
    cases: ClassVar = {"three-cycles": {"group": "a5", "seq_len": 24, "moved": 3}}


class TestText(TaskConformance):
    task = Text
    settings = ("short", "medium")
