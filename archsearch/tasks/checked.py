"""CheckedTask: a task whose every answer is checked where it enters, so that a wrong one is told and never scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from archsearch.errors import PluginError, foreign_code
from archsearch.tasks.base import Task, at_label
from archsearch.tasks.batch import Batch, fault_of
from archsearch.tasks.splits import Split

_FEW = 8
"""Rows of an evaluation set that are drawn twice."""


@dataclass(frozen=True, kw_only=True)
class CheckedTask:
    """A task as training sees it. Whatever its code raises is a `ForeignCodeError`, whatever it answers wrongly a
    `PluginError`; both name the task, the figure and the value."""

    task: Task
    what: str
    vocab_size: int
    seq_len: int
    chance: float

    @classmethod
    def of(cls, task: Task) -> CheckedTask:
        """The task with its sizes checked; draws nothing."""
        what = f'task "{task.label}"'
        if task.direction not in ("maximize", "minimize"):
            raise PluginError(f'{what}: direction = {task.direction!r}, wanted "maximize" or "minimize"')
        for split in ("validation", "test"):
            _whole(what, f'evaluation_rows["{split}"]', task.evaluation_rows.get(split))
        if "" not in task.evaluation_labels:
            raise PluginError(f'{what}: evaluation_labels = {task.evaluation_labels!r} lacks "", the main set')
        with foreign_code(what, "vocab_size"):
            vocab_size = task.vocab_size
        with foreign_code(what, "seq_len"):
            seq_len = task.seq_len
        with foreign_code(what, "chance"):
            chance = task.chance
        _whole(what, "vocab_size", vocab_size)
        _whole(what, "seq_len", seq_len)
        if not (_is_number(chance) and math.isfinite(chance)) or (
            task.direction == "maximize" and not 0 <= chance <= 1
        ):
            raise PluginError(f"{what}: chance = {chance!r}, wanted {_CHANCE[task.direction]}")
        return cls(task=task, what=what, vocab_size=vocab_size, seq_len=seq_len, chance=chance)

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.task.metric

    def check_draws(self, *, seed: int, batch_size: int) -> int:
        """Draws the first training batch and a few rows of every evaluation set twice; positions scored in the batch.

        Raises `PluginError` where the second differs: such a run could not be repeated.
        """
        first, again = (self.train_batch(seed=seed, step=0, batch_size=batch_size) for _ in range(2))
        self._same(first, again, "train_batch", f"seed {seed} and step 0")
        for split in get_args(Split):
            for label in self.task.evaluation_labels if split != "train" else [""]:
                first_rows, rows_again = (self._drawn(split, label) for _ in range(2))
                self._same(first_rows, rows_again, "draw", f'the split "{split}" and the set "{label}"')
        return int(first.scored.sum())

    def train_batch(self, *, seed: int, step: int, batch_size: int) -> Batch:
        """The training batch of a step, `[batch_size, seq_len]`."""
        with foreign_code(self.what, "train_batch"):
            batch = self.task.train_batch(seed=seed, step=step, batch_size=batch_size)
        return self._right(batch, batch_size, self.seq_len, "train_batch")

    def evaluation(self, split: Literal["validation", "test"]) -> Mapping[str, Batch]:
        """The fixed sets of a split by label; the main one has the length of training."""
        with foreign_code(self.what, "evaluation"):
            found = self.task.evaluation(split)
        if list(found) != list(self.task.evaluation_labels):
            raise PluginError(
                f"{self.what}: evaluation gave the sets {list(found)}, wanted {list(self.task.evaluation_labels)}: "
                "evaluation_labels"
            )
        rows = self.task.evaluation_rows[split]
        for label, batch in found.items():
            self._right(batch, rows, None if label else self.seq_len, f'evaluation("{split}")["{label}"]')
        return found

    def metrics(
        self, label: str, batch: Batch, *, nll: NDArray[np.floating[Any]], predictions: NDArray[np.int64]
    ) -> dict[str, float]:
        """The task's metrics of a set, the primary one finite."""
        with foreign_code(self.what, "metrics"):
            found = self.task.metrics(label, batch, nll=nll, predictions=predictions)
        primary = at_label(self.task.metric, label)
        if not isinstance(found, Mapping) or primary not in found:
            given = list(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
            raise PluginError(f'{self.what}: metrics gave {given}, wanted a mapping with "{primary}"')
        for name, value in found.items():
            if not _is_number(value) or (name == primary and not math.isfinite(value)):
                raise PluginError(f"{self.what}: metrics gave {name} = {value!r}, wanted a finite number")
        return {str(name): float(value) for name, value in found.items()}

    def _drawn(self, split: Split, label: str) -> Batch:
        rng = np.random.default_rng(0)
        with foreign_code(self.what, "draw"):
            batch = self.task.draw(rng, _FEW, split=split, label=label)
        return self._right(batch, _FEW, None if label else self.seq_len, f'draw for the split "{split}"')

    def _right(self, batch: Batch, rows: int, seq_len: int | None, call: str) -> Batch:
        fault = fault_of(batch, rows=rows, seq_len=seq_len, vocab_size=self.vocab_size)
        if fault:
            raise PluginError(f"{self.what}: {call} gave {fault}")
        return batch

    def _same(self, first: Batch, again: Batch, call: str, arguments: str) -> None:
        if not first.equals(again):
            raise PluginError(
                f"{self.what}: {call} gave two different batches for {arguments}: draw from the generator it is given, "
                "and from nothing else"
            )


_CHANCE = {"maximize": "a share, 0 to 1", "minimize": "a finite number"}


def _whole(what: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**31:
        raise PluginError(f"{what}: {name} = {value!r}, wanted a whole number from 1 to {2**31}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
