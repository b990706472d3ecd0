"""Evaluator: metrics of one's own, measured of a trained model and offered as objectives like those of the tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from archsearch.errors import PluginError, listing, nearest

if TYPE_CHECKING:
    from archsearch.arch import ArchSpec
    from archsearch.model import HybridLM
    from archsearch.tasks import Batch, Task


MOST = 1e100
"""The largest number that is kept: the squares of larger ones, which a spread is made of, are not finite."""

_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number of an evaluator says: which way is better, its ``unit`` where it has one, and a line about it."""

    direction: Literal["maximize", "minimize"]
    unit: str = ""
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What an evaluator is told of a model beside the model itself.

    ``split`` is the one that the numbers will stand for: candidates are chosen by "validation", and a front shows
    "test", so that data of the task is `Task.evaluation` of that split. ``seed`` is the training's, ``device`` a
    `torch.device`, ``judged`` "steps" where a law that a mixer breaks makes decoding the measure, and ``progress`` what
    mixers are told of the training (`Context.progress`). ``scores(batch)`` judges the model as it judges it on the
    task: the surprise of each target in nats `[B, T]`, 0 where none is scored, and the likeliest tokens `[B, T]`, as
    numpy arrays. The batch is of any length, with tokens below the task's ``vocab_size``.
    """

    split: Literal["validation", "test"]
    seed: int
    device: Any
    judged: Literal["forward", "steps"]
    progress: float
    scores: Callable[[Batch], tuple[Any, Any]]


class Evaluator(ABC):
    """Metrics that are measured of every trained model, once on each split.

    A subclass states ``name``, ``metrics`` by name, and `evaluate`; ``version`` is raised whenever the same model gets
    other numbers. Its version and the digest of its source are in the key of every measurement that it adds to.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str] = ""
    metrics: ClassVar[Mapping[str, Metric]]

    @abstractmethod
    def evaluate(self, arch: ArchSpec, model: HybridLM, task: Task, trained: Trained) -> Mapping[str, float]:
        """A finite number for each of ``metrics``.

        The model is as training left it, in evaluation mode, and gradients are off (`torch.enable_grad` turns them on).
        It is made anew for each split and evaluator, so that whatever is done to it is seen by no other. Random numbers
        of torch follow from the training's seed alone; those of Python and numpy, torch's default dtype and its threads
        are set back.
        """


def checked_numbers(evaluator: Evaluator, found: object, taken: Mapping[str, float]) -> dict[str, float]:
    """What an evaluator gave, as numbers by name. Raises `PluginError` for a metric that is missing, unknown, not
    finite, beyond `MOST`, or called as one of `taken`, those that the model has already."""
    what = f'evaluator "{evaluator.name}"'
    if not isinstance(found, Mapping):
        raise PluginError(f"{what}: evaluate gave a {type(found).__name__}, wanted a mapping of numbers by name")
    numbers: dict[str, float] = {}
    for name, value in dict(found).items():
        if name not in evaluator.metrics:
            known = listing(evaluator.metrics)
            raise PluginError(
                f'{what}: evaluate gave "{name}"{nearest(str(name), evaluator.metrics)}, which metrics does not '
                f"declare: it has {known}"
            )
        number = _number(value)
        if number is None:
            raise PluginError(
                f"{what}: evaluate gave {name} = {_shown(value)}, wanted a finite number of at most {MOST:g}"
            )
        numbers[str(name)] = number
        if name in taken:
            raise PluginError(f'{what}: "{name}" is a metric of the task or of another evaluator: rename it')
    missing = [name for name in evaluator.metrics if name not in numbers]
    if missing:
        raise PluginError(f"{what}: evaluate gave no {listing(missing)}: give a number for each of its metrics")
    return numbers


def _number(value: object) -> float | None:
    """A number as it is kept; None for what is none, is not finite, or so large that no mean or spread of it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= MOST else None


def _shown(value: object) -> str:
    """A foreign value in a sentence; a whole number may have more digits than Python writes."""
    try:
        text = repr(value)
    except ValueError:
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
