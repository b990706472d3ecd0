"""Task: what a model is trained and judged on; its batches, splits and metrics, as numpy arrays."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, ValidationError

from archsearch.arch import explain
from archsearch.errors import OptionsError, PluginError, UnknownNameError, foreign_code, listing, nearest
from archsearch.numbers import Numbers
from archsearch.tasks.batch import Batch, fault_of
from archsearch.tasks.splits import PARTS, Split, belongs

MAX_LENGTH = 2**24
"""The most tokens of a sequence that options may ask for, and the most of whatever takes places in it."""

MAX_WORDS = 2**28
"""The most tokens of one kind (keys, values, noise) that options may ask for."""

_STREAMS: Mapping[str, int] = {"train": 0, "validation": 1, "test": 2}
_MAX_DRAWS = 64


class TaskOptions(Numbers):
    """Difficulty of a task: frozen, every key known, every default stated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Task(ABC):
    """A task at one difficulty.

    A subclass states the class attributes, ``options`` typed as its own `TaskOptions`, and `draw`. ``settings`` are
    named points of the options; ``version`` is raised whenever the same options give other sequences or figures.
    ``recall`` says whether ``accuracy`` counts in the minimum over recall tasks.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, Mapping[str, Any]]]
    default_setting: ClassVar[str]
    options_type: ClassVar[type[TaskOptions]]
    metric: ClassVar[str] = "accuracy"
    direction: ClassVar[Literal["maximize", "minimize"]] = "maximize"
    recall: ClassVar[bool] = True
    evaluation_rows: ClassVar[Mapping[Literal["validation", "test"], int]] = {"validation": 512, "test": 1024}
    evaluation_labels: ClassVar[tuple[str, ...]] = ("",)

    options: TaskOptions

    def __init__(self, options: TaskOptions, setting: str | None = None) -> None:
        self.options = options
        self.setting = self._known(setting)
        self._fixed: dict[str, Mapping[str, Batch]] = {}

    @classmethod
    def make(cls, setting: str | None = None, options: Mapping[str, Any] | None = None) -> Self:
        """The task of a named setting, some options overridden; raises `UnknownNameError` or `OptionsError`."""
        named = cls._known(setting)
        return cls(cls._parse({**cls.settings[named], **(options or {})}), named)

    @classmethod
    def _known(cls, setting: str | None) -> str:
        named = cls.default_setting if setting is None else setting
        if named not in cls.settings:
            raise UnknownNameError(
                f'task "{cls.name}" has no setting "{named}"{nearest(named, cls.settings)}: '
                f"its settings are {listing(cls.settings)}"
            )
        return named

    @classmethod
    def _parse(cls, values: Mapping[str, Any]) -> TaskOptions:
        try:
            return cls.options_type.model_validate(dict(values))
        except ValidationError as error:
            raise OptionsError(explain(error, cls.options_type, cls.name)) from None

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens; every token and target is below it."""

    @property
    @abstractmethod
    def seq_len(self) -> int:
        """Tokens T of a training sequence."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The primary metric of a guesser that knows the kind of the answer and nothing of the sequence."""

    @property
    def data_digest(self) -> str | None:
        """Digest of the outside data that sequences are made of, None when there is none."""
        return None

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        """`count` sequences, of whatever part of the hash partition: the caller keeps those of the split.

        ``split`` matters to tasks with outside data, whose files belong to splits; ``label`` is the evaluation
        set that is drawn for, "" for the main one and for training.
        """

    @property
    def label(self) -> str:
        """``name:setting``, and the options that differ from the setting's in brackets; `resolve_task` reads it."""
        stated = self._parse(self.settings[self.setting]).model_dump(mode="json")
        mine = self.options.model_dump(mode="json")
        changed = [f"{key}={_written(value)}" for key, value in mine.items() if value != stated[key]]
        return f"{self.name}:{self.setting}" + (f"({', '.join(changed)})" if changed else "")

    def to_json(self) -> dict[str, Any]:
        """Name, setting and every option, as plain data."""
        return {"name": self.name, "setting": self.setting, "options": self.options.model_dump(mode="json")}

    def train_batch(self, *, seed: int, step: int, batch_size: int) -> Batch:
        """The training batch of a step: a function of (seed, step) alone, so that a run can go on where it stopped."""
        rng = np.random.default_rng([_STREAMS["train"], seed, step])
        return self._kept(rng, batch_size, split="train", label="", spare=batch_size // 4 + 4)

    def evaluation(self, split: Literal["validation", "test"]) -> Mapping[str, Batch]:
        """The fixed sets of a split by label: "" is the main one, others such as "2x" go beyond the trained length."""
        if split not in self._fixed:
            rows = self.evaluation_rows[split]
            self._fixed[split] = {
                label: self._kept(
                    np.random.default_rng([_STREAMS[split], number]), rows, split=split, label=label, spare=rows
                )
                for number, label in enumerate(self.evaluation_labels)
            }
        return self._fixed[split]

    def _kept(self, rng: np.random.Generator, count: int, *, split: Split, label: str, spare: int) -> Batch:
        """`count` rows that the partition gives to `split`, drawing ``count + spare`` at a time."""
        parts: list[Batch] = []
        missing = count
        for _ in range(_MAX_DRAWS * PARTS):
            drawn = self._drawn(rng, count + spare, split=split, label=label)
            kept = drawn.take(belongs(drawn.tokens, split)).take(slice(missing))
            parts.append(kept)
            missing -= len(kept.tokens)
            if not missing:
                break
        else:
            raise OptionsError(
                f"{self.label}: its options leave too few different sequences to set a {split} split apart: "
                "make the task larger"
            )
        return Batch(
            tokens=np.concatenate([part.tokens for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
        )

    def _drawn(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        """`draw`, whose errors name the task; raises `PluginError` for a batch that is not what was asked for."""
        what = f'task "{self.label}"'
        with foreign_code(what, "draw"):
            drawn = self.draw(rng, count, split=split, label=label)
        fault = fault_of(drawn, rows=count, seq_len=None if label else self.seq_len, vocab_size=self.vocab_size)
        if fault:
            raise PluginError(f'{what}: draw for the split "{split}" gave {fault}')
        return drawn

    def metrics(
        self, label: str, batch: Batch, *, nll: NDArray[np.floating[Any]], predictions: NDArray[np.int64]
    ) -> dict[str, float]:
        """Metrics of an evaluation set by name, those of the set "2x" as ``accuracy@2x``.

        ``nll`` [B, T] is in nats, 0 where a position is not scored; ``predictions`` [B, T] are the likeliest tokens.
        """
        found = {"accuracy": share(batch, predictions), **self.breakdown(batch, predictions)}
        return {at_label(name, label): value for name, value in found.items()}

    def breakdown(self, batch: Batch, predictions: NDArray[np.int64]) -> dict[str, float]:
        """Further metrics that show where accuracy breaks, as ``accuracy[kind]``; kinds that do not occur are left
        out."""
        return {}


def share(batch: Batch, predictions: NDArray[np.int64], where: NDArray[np.bool_] | None = None) -> float:
    """Share of the scored positions (of those in `where` [B, T], if given) that were predicted; NaN for none."""
    counted = batch.scored if where is None else batch.scored & where
    return float((predictions == batch.targets)[counted].mean()) if counted.any() else float("nan")


def share_by(
    batch: Batch, predictions: NDArray[np.int64], kinds: Mapping[str, NDArray[np.bool_]], *, metric: str = "accuracy"
) -> dict[str, float]:
    """`share` for each kind of position that occurs, named ``metric[kind]``."""
    return {
        f"{metric}[{kind}]": share(batch, predictions, where)
        for kind, where in kinds.items()
        if (batch.scored & where).any()
    }


def at_label(metric: str, label: str) -> str:
    """The name of a metric on an evaluation set: ``accuracy`` on the main one, ``accuracy@2x`` on another."""
    return f"{metric}@{label}" if label else metric


def times(label: str) -> int:
    """By how much the sequences of an evaluation set are longer than trained ones: 2 for "2x", 1 for the main set."""
    return int(label.removesuffix("x")) if label else 1


def _written(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, list):
        return json.dumps(os.pathsep.join(map(str, value)))
    return json.dumps(value)
