"""A task that keeps every law, and a zoo of tasks with one planted bug each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import log
from typing import Any, ClassVar

import numpy as np

from archsearch.tasks import IGNORE, Batch, Task, TaskOptions


class RecallOptions(TaskOptions):
    """``seq_len``: tokens of a sequence."""

    seq_len: int = 24


class Right(Task):
    """The last four tokens are asked: each is its own answer."""

    name: ClassVar[str] = "right"
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"easy": {}, "long": {"seq_len": 40}}
    default_setting: ClassVar[str] = "easy"
    options_type: ClassVar[type[TaskOptions]] = RecallOptions
    evaluation_rows: ClassVar = {"validation": 64, "test": 256}
    evaluation_labels: ClassVar = ("", "2x")

    options: RecallOptions

    @property
    def vocab_size(self) -> int:
        return 16

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / 16

    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        tokens = rng.integers(16, size=(count, self.seq_len * (2 if label else 1)))
        targets = tokens.copy()
        targets[:, :-4] = IGNORE
        return Batch(tokens, targets)


class RightLoss(Right):
    """The same, judged by bits."""

    metric, direction, recall = "bits", "minimize", False

    @property
    def chance(self) -> float:
        return 4.0

    def metrics(self, label: str, batch: Batch, *, nll: Any, predictions: Any) -> dict[str, float]:
        bits = float(np.asarray(nll)[batch.scored].mean() / log(2))
        return {f"bits@{label}" if label else "bits": bits}


def with_draw(change: Any) -> type[Right]:
    """A task whose `draw` is changed."""

    class Planted(Right):
        def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Any:
            return change(self, super().draw(rng, count, split=split, label=label), label)

    return Planted


def _put(array: Any, value: int, *, row: int = 0) -> Any:
    array[row, -1] = value
    return array


def _unasked(batch: Batch) -> Batch:
    batch.targets[::3] = IGNORE
    return batch


class Longer(Right):
    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        tokens = rng.integers(16, size=(count, self.seq_len + 1))
        return Batch(tokens, tokens.copy())


class DrawsFromElsewhere(Right):
    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        return super().draw(np.random.default_rng(), count, split=split, label=label)


class CountsItsDraws(Right):
    turns = itertools.count()

    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        drawn = super().draw(rng, count, split=split, label=label)
        drawn.tokens[:, 0] = next(self.turns) % 16
        return drawn


class HashesText(Right):
    """Python hashes text otherwise in every process."""

    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        seed = hash(("salt", int(rng.integers(2**31))))
        return super().draw(np.random.default_rng(seed % 2**31), count, split=split, label=label)


class SameForEverySeed(Right):
    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        return super().draw(np.random.default_rng(0), count, split=split, label=label)


class OneSplit(Right):
    """Makes its batches itself, past the partition of sequences."""

    def train_batch(self, *, seed: int, step: int, batch_size: int) -> Batch:
        rows = self.evaluation("test")[""]
        taken = np.random.default_rng([seed, step]).integers(256, size=batch_size)
        return Batch(rows.tokens[taken], rows.targets[taken])


class ForgetsTheLongSet(Right):
    def evaluation(self, split: Any) -> Mapping[str, Batch]:
        return {"": super().evaluation(split)[""]}


class BoastsOfChance(Right):
    @property
    def chance(self) -> float:
        return 0.5


class ChanceAboveOne(Right):
    @property
    def chance(self) -> float:
        return 6.25


class ChanceNotANumber(RightLoss):
    @property
    def chance(self) -> float:
        return float("nan")


class ChanceOfLoss(RightLoss):
    @property
    def chance(self) -> float:
        return 2.0


class NoPrimary(Right):
    def metrics(self, label: str, batch: Batch, *, nll: Any, predictions: Any) -> dict[str, float]:
        return {"exact": 1.0}


class NotFinite(Right):
    def metrics(self, label: str, batch: Batch, *, nll: Any, predictions: Any) -> dict[str, float]:
        return {name: float("nan") for name in super().metrics(label, batch, nll=nll, predictions=predictions)}


class NoLabel(Right):
    def metrics(self, label: str, batch: Batch, *, nll: Any, predictions: Any) -> dict[str, float]:
        return {**super().metrics(label, batch, nll=nll, predictions=predictions), "exact": 1.0}


class Backwards(Right):
    def metrics(self, label: str, batch: Batch, *, nll: Any, predictions: Any) -> dict[str, float]:
        found = super().metrics(label, batch, nll=nll, predictions=predictions)
        return {name: 1 - value for name, value in found.items()}


class LosesOptions(Right):
    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "setting": "easy", "options": {}}


class VersionOfText(Right):
    version: Any = "1.0"


class HalfAVocabulary(Right):
    @property
    def vocab_size(self) -> Any:
        return 16.5


class NoSuchDefault(Right):
    default_setting = "hard"


class BrokenSetting(Right):
    settings: ClassVar = {"easy": {}, "hard": {"length": 3}}


ZOO: dict[str, tuple[type[Task], str, str]] = {
    "longer-than-it-says": (Longer, "training_batches_are", r"gave tokens \[.*, 25\], wanted \[.*, 24\]"),
    "out-of-vocabulary": (
        with_draw(lambda task, batch, label: Batch(_put(batch.tokens, 16), batch.targets)),
        "training_batches_are",
        "gave the token 16, wanted 0 to 15: vocab_size = 16",
    ),
    "negative-token": (
        with_draw(lambda task, batch, label: Batch(_put(batch.tokens, -1), batch.targets)),
        "evaluation_sets_are_what",
        "gave the token -1, wanted 0 to 15",
    ),
    "target-out-of-range": (
        with_draw(lambda task, batch, label: Batch(batch.tokens, _put(batch.targets, 99))),
        "training_batches_are",
        "gave the target 99, wanted 0 to 15",
    ),
    "another-ignored-value": (
        with_draw(lambda task, batch, label: Batch(batch.tokens, np.where(batch.scored, batch.targets, -1))),
        "training_batches_are",
        "gave the target -1",
    ),
    "long-set-out-of-range": (
        with_draw(lambda task, batch, label: Batch(_put(batch.tokens, 16) if label else batch.tokens, batch.targets)),
        "evaluation_sets_are_what",
        "gave the token 16",
    ),
    "narrow-integers": (
        with_draw(lambda task, batch, label: Batch(batch.tokens.astype(np.int32), batch.targets)),
        "training_batches_are",
        "gave tokens of int32, wanted int64",
    ),
    "lists": (
        with_draw(lambda task, batch, label: Batch(batch.tokens.tolist(), batch.targets)),
        "training_batches_are",
        "gave tokens that are a list",
    ),
    "a-pair": (
        with_draw(lambda task, batch, label: (batch.tokens, batch.targets)),
        "training_batches_are",
        "gave a tuple, wanted an archsearch.tasks.Batch",
    ),
    "too-few-rows": (
        with_draw(lambda task, batch, label: batch.take(slice(2))),
        "training_batches_are",
        r"gave tokens \[2, 24\], wanted \[",
    ),
    "nothing-asked": (
        with_draw(lambda task, batch, label: Batch(batch.tokens, np.full_like(batch.targets, IGNORE))),
        "training_batches_are",
        "no target that is scored",
    ),
    "some-rows-unasked": (
        with_draw(lambda task, batch, label: _unasked(batch)),
        "every_row_is_asked",
        "rows have no scored position",
    ),
    "random-elsewhere": (DrawsFromElsewhere, "draws_depend_on_seed", "depends on what was drawn before"),
    "counts-its-draws": (CountsItsDraws, "evaluation_sets_are_fixed", "is another each time it is made"),
    "hashes-text": (HashesText, "same_in_another_process", "another process draws another batch"),
    "one-batch-for-all": (SameForEverySeed, "draws_depend_on_seed", "give the batch of seed 3 and step 7"),
    "trains-on-the-test": (OneSplit, "no_sequence_is_in_two_splits", "sequences of test are in training too"),
    "forgets-a-set": (ForgetsTheLongSet, "evaluation_sets_are_what", r"gave the sets \[''\], wanted \['', '2x'\]"),
    "boasts-of-chance": (BoastsOfChance, "guesser_has_chance", "and chance = 0.5"),
    "chance-above-one": (ChanceAboveOne, "sizes_and_chance", "chance = 6.25, wanted a share, 0 to 1"),
    "chance-not-a-number": (ChanceNotANumber, "sizes_and_chance", "chance = nan, wanted a finite number"),
    "chance-of-a-loss": (ChanceOfLoss, "guesser_has_chance", "bits = 4, and chance = 2"),
    "no-primary-metric": (NoPrimary, "metrics_are_named", 'lacks "accuracy"'),
    "metric-not-finite": (NotFinite, "metrics_are_named", "accuracy = nan"),
    "metric-without-label": (NoLabel, "metrics_are_named", "exact on the set '2x'"),
    "backwards": (Backwards, "right_answers_are_better", "accuracy = 0.0, and chance is 0.0625"),
    "loses-options": (LosesOptions, "json_and_label", "reads back as"),
    "version-of-text": (VersionOfText, "version_is", "version = '1.0', wanted a whole number"),
    "half-a-vocabulary": (HalfAVocabulary, "sizes_and_chance", "vocab_size = 16.5, wanted a whole number"),
    "no-such-default": (NoSuchDefault, "settings_can_be_made", "default_setting = 'hard' is none of"),
    "broken-setting": (BrokenSetting, "settings_can_be_made", 'unknown key "right.length"'),
}
"""By bug: the task, the law that it fails (a part of its name), and what is said."""
