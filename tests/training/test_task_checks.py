"""A task that is wrong is told before anything is scored: the task, the figure and the value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from training_samples import RECIPE, Echo, Tasks, arch_of, registry_of

from archsearch.errors import ForeignCodeError, PluginError
from archsearch.tasks import Batch, Task, resolve_task
from archsearch.training import Recipe, evaluate


def redrawn(change: Callable[[Batch, str, str], Any]) -> type[Echo]:
    """The echo task, each draw changed."""

    class Changed(Echo):
        def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Any:
            return change(super().draw(rng, count, split=split, label=label), split, label)

    return Changed


def measuring(metrics: Callable[[dict[str, float]], Any]) -> type[Echo]:
    """The echo task, its metrics changed."""

    class Changed(Echo):
        def metrics(self, label: str, batch: Batch, *, nll: Any, predictions: Any) -> Any:
            return metrics(super().metrics(label, batch, nll=nll, predictions=predictions))

    return Changed


class Sizes(Echo):
    wrong: ClassVar[Mapping[str, Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        wrong = type(self).wrong
        if name in wrong:
            if isinstance(wrong[name], Exception):
                raise wrong[name]
            return wrong[name]
        return super().__getattribute__(name)


def sized(**wrong: Any) -> type[Echo]:
    """The echo task, some attributes replaced; an exception is raised."""
    return type("Sized", (Sizes,), {"wrong": wrong})


def changed_at(split: str, change: Callable[[Any], Any]) -> type[Echo]:
    """Draws of one split have their tokens changed."""
    return redrawn(lambda batch, drawn, _: Batch(change(batch.tokens), batch.targets) if drawn == split else batch)


def raise_(error: Exception) -> Any:
    raise error


def plus_turn(tokens: Any, turns: Any = itertools.count()) -> Any:  # noqa: B008 - one count for all draws
    return (tokens + next(turns)) % 16


class Overrides(Echo):
    """Makes batches itself, past what `draw` is checked for."""

    def train_batch(self, *, seed: int, step: int, batch_size: int) -> Batch:
        batch = super().train_batch(seed=seed, step=step, batch_size=batch_size)
        return batch.take(slice(batch_size // 2))


class LosesASet(Echo):
    evaluation_labels = ("", "2x")

    def evaluation(self, split: Any) -> Any:
        return {"": super().evaluation(split)[""]}


PLACE = '^task "echo:easy": '
WRONG: dict[str, tuple[type[Task], str]] = {
    "longer": (
        redrawn(lambda batch, *_: Batch(np.pad(batch.tokens, ((0, 0), (0, 1))), batch.targets)),
        r'draw for the split "train" gave tokens \[\d+, 13\], wanted \[\d+, 12\]',
    ),
    "token": (changed_at("train", lambda tokens: tokens + 5), "gave the token 20, wanted 0 to 15: vocab_size = 16"),
    "negative": (changed_at("train", lambda tokens: tokens - 1), "gave the token -1, wanted 0 to 15"),
    "target": (
        redrawn(lambda batch, *_: Batch(batch.tokens, np.where(batch.scored, 16, batch.targets))),
        "gave the target 16, wanted 0 to 15: vocab_size = 16",
    ),
    "validation-alone": (changed_at("validation", lambda tokens: tokens + 5), 'split "validation" gave the token 20'),
    "test-alone": (changed_at("test", lambda tokens: tokens[:, :-1]), r'split "test" gave tokens \[\d+, 11\]'),
    "dtype": (changed_at("train", lambda tokens: tokens.astype(np.int32)), "gave tokens of int32, wanted int64"),
    "nothing": (redrawn(lambda *_: None), "gave a NoneType, wanted an archsearch.tasks.Batch"),
    "unlike-twice": (
        changed_at("train", plus_turn),
        "train_batch gave two different batches for seed 0 and step 0: draw from",
    ),
    "unlike-twice-on-test": (
        changed_at("test", plus_turn),
        'draw gave two different batches for the split "test" and the set ""',
    ),
    "half-a-batch": (Overrides, r"train_batch gave tokens \[4, 12\], wanted \[8, 12\]"),
    "a-set-less": (LosesASet, r"evaluation gave the sets \[''\], wanted \['', '2x'\]"),
    "draw-raises": (
        redrawn(lambda *_: raise_(KeyError("x"))),
        r"draw raised KeyError: 'x' \(.*test_task_checks\.py:\d+\)$",
    ),
    "metrics-raises": (
        measuring(lambda _: raise_(ZeroDivisionError("by 0"))),
        r"metrics raised ZeroDivisionError: by 0 \(.*:\d+\)$",
    ),
    "metrics-none": (measuring(lambda _: None), 'metrics gave a NoneType, wanted a mapping with "accuracy"'),
    "metrics-other": (measuring(lambda _: {"exact": 1.0}), r'metrics gave \[\'exact\'\], wanted .* "accuracy"'),
    "metrics-nan": (measuring(lambda found: dict.fromkeys(found, float("nan"))), "metrics gave accuracy = nan, wanted"),
    "metrics-text": (measuring(lambda found: dict.fromkeys(found, "1.0")), "metrics gave accuracy = '1.0', wanted"),
    "vocab-raises": (sized(vocab_size=OSError("no file")), "vocab_size raised OSError: no file"),
    "vocab-float": (sized(vocab_size=16.0), "vocab_size = 16.0, wanted a whole number from 1 to 2147483648"),
    "vocab-zero": (sized(vocab_size=0), "vocab_size = 0, wanted a whole number"),
    "seq-len": (sized(seq_len=-3), "seq_len = -3, wanted a whole number"),
    "chance": (sized(chance=6.25), "chance = 6.25, wanted a share, 0 to 1"),
    "chance-nan": (sized(chance=float("nan")), "chance = nan, wanted a share, 0 to 1"),
    "direction": (sized(direction="up"), 'direction = \'up\', wanted "maximize" or "minimize"'),
    "rows": (sized(evaluation_rows={"validation": 0, "test": 8}), r'evaluation_rows\["validation"\] = 0, wanted'),
    "labels": (sized(evaluation_labels=("2x",)), r"evaluation_labels = \('2x',\) lacks \"\", the main set"),
}


@pytest.mark.parametrize(("task", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_task_is_told(task: type[Task], said: str) -> None:
    registry = registry_of(Tasks(task))
    with pytest.raises(PluginError, match=PLACE + ".*" + said) as caught:
        evaluate(arch_of("full", registry), resolve_task("echo", registry), Recipe.read(RECIPE), 0, registry=registry)
    assert "\n" not in str(caught.value)


def test_an_option_that_a_task_cannot_take_names_the_task() -> None:
    class Chokes(Echo):
        def __init__(self, *arguments: Any) -> None:
            raise RuntimeError("choked")

    with pytest.raises(ForeignCodeError, match=r'^task "echo": make raised RuntimeError: choked'):
        resolve_task("echo", registry_of(Tasks(Chokes)))
