"""TaskConformance: the laws of a task, as a pytest suite that a plugin author inherits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite, log, sqrt
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from archsearch.errors import ArchsearchError, SpecError
from archsearch.tasks import Batch, CheckedTask, Task, resolve_task
from archsearch.tasks.base import at_label
from archsearch.tasks.splits import row_hash

_SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")
_SEED, _STEP, _ROWS = 3, 7, 16

_ELSEWHERE = """
import importlib, json, sys
from archsearch.tasks.splits import row_hash
module, name, data, seed, step, rows = json.loads(sys.stdin.read())
task = getattr(importlib.import_module(module), name).make(data["setting"], data["options"])
batch = task.train_batch(seed=seed, step=step, batch_size=rows)
assert "torch" not in sys.modules, "importing and drawing the task imported torch"
print(json.dumps([row_hash(batch.tokens).tolist(), row_hash(batch.targets).tolist()]))
"""


class TaskConformance:
    """Inherit, set ``task``, and pytest runs the laws that every task keeps::

        class TestMyTask(TaskConformance):
            task = MyTask
            cases = {"long": {"seq_len": 512}}

    Every named setting is a case (or those in ``settings``), and ``cases`` are options of the default setting by
    readable id. ``spread`` is by how many standard deviations a guesser may miss ``chance``, ``chance_tolerance`` by
    what share where the metric is minimised; `guesses` and `answers` may be overridden where a guess is no random
    token of the answers' range, or where not every scored position is an answer.
    """

    task: ClassVar[type[Task]]
    cases: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    settings: ClassVar[tuple[str, ...] | None] = None
    spread: ClassVar[float] = 5.0
    chance_tolerance: ClassVar[float] = 0.05

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case."""
        if "made" not in metafunc.fixturenames:
            return
        named = self.task.settings if self.settings is None else self.settings
        tried: dict[str, tuple[str | None, Mapping[str, Any]]] = {setting: (setting, {}) for setting in named}
        tried |= {name: (None, options) for name, options in self.cases.items()}
        metafunc.parametrize("made", list(tried.values()), ids=list(tried), indirect=True)

    @pytest.fixture
    def made(self, request: pytest.FixtureRequest) -> Task:
        """The case's task, fresh."""
        setting, options = request.param
        return self.task.make(setting, options)

    # what it says of itself

    def test_settings_can_be_made_and_unknown_options_are_refused(self) -> None:
        assert self.task.default_setting in self.task.settings, (
            f"default_setting = {self.task.default_setting!r} is none of {list(self.task.settings)}"
        )
        for setting in self.task.settings:
            self.task.make(setting)
        with pytest.raises(SpecError, match="no_such_option"):
            self.task.make(None, {"no_such_option": 1})

    def test_version_is_a_whole_number(self) -> None:
        version: Any = self.task.version
        whole = isinstance(version, int) and not isinstance(version, bool) and version >= 1
        assert whole, f"version = {version!r}, wanted a whole number from 1"

    def test_sizes_and_chance_are_such_as_can_be(self, made: Task) -> None:
        self._checked(made)

    def test_json_and_label_read_back(self, made: Task) -> None:
        data = json.loads(json.dumps(made.to_json()))
        again = self.task.make(data["setting"], data["options"])
        assert again.options == made.options, f"to_json reads back as {again.options!r}, and was {made.options!r}"
        labelled = resolve_task(made.label, _Only(self.task))
        assert labelled.options == made.options, f'the label "{made.label}" reads back as {labelled.options!r}'

    # batches

    def test_training_batches_are_what_is_promised(self, made: Task) -> None:
        with _told():
            self._checked(made).train_batch(seed=_SEED, step=_STEP, batch_size=_ROWS)

    def test_evaluation_sets_are_what_is_promised(self, made: Task) -> None:
        for split in _SPLITS:
            with _told():
                self._checked(made).evaluation(split)

    def test_every_row_is_asked_something(self, made: Task) -> None:
        batches = {"training": made.train_batch(seed=_SEED, step=_STEP, batch_size=_ROWS)}
        batches |= {f'{split} "{label}"': batch for split in _SPLITS for label, batch in made.evaluation(split).items()}
        for name, batch in batches.items():
            empty = int((~batch.scored.any(axis=1)).sum())
            assert not empty, f"{name}: {empty} of {len(batch.scored)} rows have no scored position"

    def test_draws_depend_on_seed_and_step_alone(self, made: Task) -> None:
        fresh = self._again(made)
        made.train_batch(seed=_SEED, step=_STEP + 1, batch_size=_ROWS)
        made.evaluation("validation")
        first, again = (self._batch(task, _SEED, _STEP) for task in (fresh, made))
        assert first.equals(again), "a batch depends on what was drawn before it: draw from the given generator alone"
        for seed, step in ((_SEED, _STEP + 1), (_SEED + 1, _STEP), (_STEP, _SEED)):
            other = self._batch(fresh, seed, step)
            assert not np.array_equal(first.tokens, other.tokens), (
                f"seed {seed} and step {step} give the batch of seed {_SEED} and step {_STEP}"
            )

    def test_evaluation_sets_are_fixed(self, made: Task) -> None:
        other = self._again(made)
        self._batch(other, _SEED, _STEP)
        for split in _SPLITS:
            first, again = made.evaluation(split), other.evaluation(split)
            for label, batch in first.items():
                assert batch.equals(again[label]), f'the set "{label}" of {split} is another each time it is made'

    def test_draws_are_the_same_in_another_process(self, made: Task) -> None:
        request = [self.task.__module__, self.task.__qualname__, made.to_json(), _SEED, _STEP, _ROWS]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "271828"}
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], input=json.dumps(request), env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr.strip().rpartition("\n")[2]
        batch = self._batch(made, _SEED, _STEP)
        here = [row_hash(batch.tokens).tolist(), row_hash(batch.targets).tolist()]
        assert json.loads(done.stdout) == here, "another process draws another batch for the same seed and step"

    def test_no_sequence_is_in_two_splits(self, made: Task) -> None:
        seen = {split: _rows(made.evaluation(split)[""]) for split in _SPLITS}
        train = set[bytes]().union(*(_rows(made.train_batch(seed=0, step=step, batch_size=256)) for step in range(4)))
        for name, rows in {"training": train, "test": seen["test"]}.items():
            shared = len(rows & seen["validation"])
            assert not shared, f"{shared} sequences of validation are in {name} too"
        assert not train & seen["test"], f"{len(train & seen['test'])} sequences of test are in training too"

    # metrics

    def test_metrics_are_named_and_finite(self, made: Task) -> None:
        for label, batch in made.evaluation("validation").items():
            rng = np.random.default_rng(0)
            for predictions in (batch.targets, self.guesses(made, batch, rng)):
                for name, value in self._metrics(made, label, batch, predictions).items():
                    assert isfinite(value), f"{name} = {value} on the set {label!r}"
                    assert name.endswith(f"@{label}") if label else "@" not in name, f"{name} on the set {label!r}"

    def test_the_right_answers_are_better_than_chance(self, made: Task) -> None:
        batch = made.evaluation("validation")[""]
        found = self._metrics(made, "", batch, batch.targets)[made.metric]
        better = found > made.chance if made.direction == "maximize" else found < made.chance
        assert better, f"the right answers have {made.metric} = {found}, and chance is {made.chance}"

    def test_a_guesser_has_chance(self, made: Task) -> None:
        batch = made.evaluation("test")[""]
        predictions = self.guesses(made, batch, np.random.default_rng(0))
        found = self._metrics(made, "", batch, predictions, uniform=True)[made.metric]
        allowed = self.chance_tolerance * max(1.0, abs(made.chance))
        if made.direction == "maximize":
            allowed = self.spread * sqrt(max(made.chance, found) / self.answers(made, batch))
        assert abs(found - made.chance) <= allowed, (
            f"a guesser has {made.metric} = {found:.4g}, and chance = {made.chance:.4g} (allowed: {allowed:.2g} apart)"
        )

    # what a subclass may override

    def guesses(self, task: Task, batch: Batch, rng: np.random.Generator) -> NDArray[np.int64]:
        """Predictions `[B, T]` of who knows the kind of the answer alone: any token of the answers' range."""
        right = batch.targets[batch.scored]
        return rng.integers(right.min(), right.max() + 1, size=batch.targets.shape)

    def answers(self, task: Task, batch: Batch) -> int:
        """How many answers the primary metric is the mean of."""
        return int(batch.scored.sum())

    # helpers

    def _checked(self, made: Task) -> CheckedTask:
        with _told():
            return CheckedTask.of(made)

    def _again(self, made: Task) -> Task:
        return self.task.make(made.setting, made.to_json()["options"])

    def _batch(self, made: Task, seed: int, step: int) -> Batch:
        return made.train_batch(seed=seed, step=step, batch_size=_ROWS)

    def _metrics(
        self, made: Task, label: str, batch: Batch, predictions: NDArray[np.int64], *, uniform: bool = False
    ) -> Mapping[str, float]:
        nll = np.where(batch.scored, log(made.vocab_size) if uniform else 0.0, 0.0)
        found = made.metrics(label, batch, nll=nll, predictions=predictions)
        primary = at_label(made.metric, label)
        assert primary in found, f'metrics gave {list(found)} on the set {label!r}, which lacks "{primary}"'
        return found


@contextmanager
def _told() -> Iterator[None]:
    """Turns an error of the house into the failure of a law, in one line."""
    try:
        yield
    except ArchsearchError as error:
        raise AssertionError(str(error)) from error


class _Only:
    """A registry of one task."""

    def __init__(self, task: type[Task]) -> None:
        self._task = task

    def task(self, name: str) -> type[Task]:
        """The task, under any name."""
        return self._task


def _rows(batch: Batch) -> set[bytes]:
    return {row.tobytes() for row in batch.tokens}
