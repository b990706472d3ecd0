"""The built-in tasks keep the laws of the contract."""

from __future__ import annotations

from typing import Any, ClassVar

from archsearch.tasks import Batch
from archsearch.tasks.copying import Copying
from archsearch.tasks.mqar import Mqar
from archsearch.tasks.multihop import Multihop
from archsearch.tasks.niah import Niah
from archsearch.tasks.state_tracking import StateTracking
from archsearch.tasks.text import Text
from archsearch.testing import TaskConformance


class TestCopying(TaskConformance):
    task = Copying
    cases: ClassVar = {"long": {"seq_len": 200, "items": 3}}


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


class TestNiah(TaskConformance):
    task = Niah


class TestStateTracking(TaskConformance):
    task = StateTracking
    cases: ClassVar = {"three-cycles": {"group": "a5", "seq_len": 24, "moved": 3}}


class TestText(TaskConformance):
    task = Text
    settings = ("short", "medium")
