"""Lessons: the teacher of an evaluation, found where another trial stored it, or trained first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.model import HybridLM
from archsearch.registry import Registry
from archsearch.tasks import CheckedTask
from archsearch.training.checkpoint import Checkpoint, told
from archsearch.training.group import ALONE, Group
from archsearch.training.judge import Judge, on_device
from archsearch.training.teacher_arch import teacher_arch
from archsearch.training.teaching import Teaching, asks, check_teacher

_ROWS = 2
"""Sequences by which it is seen whether a layer asks."""


class Training(Protocol):
    """The part of an `Evaluation` by which a teacher is trained."""

    key: str

    @property
    def done(self) -> bool: ...

    @property
    def progress(self) -> Any: ...

    def advance(self, seconds: float) -> Any: ...

    def trained(self) -> tuple[Mapping[str, Any], str]: ...

    def discard(self) -> None: ...


class Lessons:
    """What an evaluation's fits are taught by, once it is `ready`.

    A teacher that is a model lies beside the checkpoint, in a file named by the key of its own measurement: it is
    trained once for all candidates of one backbone and depth, on each task and seed, by whoever needs it first. Two
    that begin at once both train it, to the same weights on the same kind of machine, and each file is whole. Where
    no layer asks a teacher none is trained.
    """

    def __init__(self, teaching: Teaching | None) -> None:
        self.teaching = teaching
        self.told: str | None = None
        self._training: Training | None = None
        self._store: Checkpoint | None = None
        self._group: Group = ALONE
        self._steps = 0

    @classmethod
    def of(
        cls,
        arch: ArchSpec,
        judge: Judge,
        seed: int,
        registry: Registry,
        *,
        checkpoint: Path | str | None,
        train: Callable[[ArchSpec, Path | str | None], Training],
    ) -> Lessons:
        """The lessons of `arch`; `train` begins the training of a teacher, its checkpoint at a place."""
        recipe = judge.recipe
        if recipe.teacher is None:
            return cls(None)
        taught_by = teacher_arch(arch, recipe, registry)
        if taught_by is None:
            return cls(Teaching(warmup=recipe.teacher_warmup))
        check_teacher(arch.model, recipe, registry)
        model = _fresh(taught_by, judge.task, registry, judge.device)
        if not _asked(arch, model, judge, seed, registry):
            return cls(None)
        found = cls(Teaching(warmup=recipe.teacher_warmup, model=model))
        found._look_for(train(taught_by, beside(checkpoint, "teacher")), checkpoint, judge)
        return found

    @property
    def ready(self) -> bool:
        """Whether nothing is left to train."""
        return self._training is None

    @property
    def steps(self) -> tuple[int, int]:
        """Steps that the teacher has taken here, and of how many; none where it was found."""
        if self._training is None:
            return self._steps, self._steps
        progress = self._training.progress
        return progress.step, progress.total_steps

    def advance(self, seconds: float) -> None:
        """Trains the teacher for about `seconds`; raises `SpecError` for one that diverged."""
        training = self._training
        if training is None:
            return
        training.advance(seconds)
        if training.done:
            weights, quality = training.trained()
            self._steps = training.progress.total_steps
            if self._store is not None and self._group.leads:
                self._store.write({"key": training.key, "model": weights, "told": quality})
            training.discard()
            self._take(weights, quality)

    def _look_for(self, training: Training, checkpoint: Path | str | None, judge: Judge) -> None:
        """Takes the stored teacher, or else the `training` to be done."""
        place = None if checkpoint is None else _in_folder_of(checkpoint, f"teacher-{training.key}.pt")
        self._store, self._group = None if place is None else Checkpoint(place), judge.group
        leads = self._store is not None and self._group.leads
        stored = self._store.read(training.key, judge.device) if self._store is not None and leads else None
        stored, self._training = self._group.tell(stored, judge.device), training
        if stored is None:
            return
        try:
            self._take(stored["model"], str(stored["told"]))
        except Exception as error:  # foreign data: a file of any content, each of which is refused in its own way
            if self._store is not None and leads:
                self._store.ignore(told(error))

    def _take(self, weights: Mapping[str, Any], quality: str) -> None:
        assert self.teaching is not None
        assert self.teaching.model is not None
        self.teaching.model.load_state_dict(weights)
        self.teaching.model.eval().requires_grad_(False)
        self.told, self._training = quality, None


def beside(checkpoint: Path | str | None, what: str) -> Path | str | None:
    """A place beside a checkpoint's that is as much its own."""
    if checkpoint is None:
        return None
    return _in_folder_of(checkpoint, f"{str(checkpoint).rpartition('/')[2].removesuffix('.pt')}-{what}.pt")


def _in_folder_of(checkpoint: Path | str, name: str) -> Path | str:
    if isinstance(checkpoint, Path):
        return checkpoint.with_name(name)
    folder, slash, _ = checkpoint.rpartition("/")
    return f"{folder}{slash}{name}"


def _fresh(arch: ArchSpec, task: CheckedTask, registry: Registry, device: torch.device) -> HybridLM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HybridLM(arch, registry, vocab_size=task.vocab_size).to(device)


def _asked(arch: ArchSpec, teacher: HybridLM, judge: Judge, seed: int, registry: Registry) -> bool:
    batch = judge.task.train_batch(seed=seed, step=0, batch_size=judge.recipe.batch_size).take(slice(0, _ROWS))
    with torch.random.fork_rng():
        student = _fresh(arch, judge.task, registry, judge.device)
        return asks(student, teacher, on_device(batch, judge.device)[0])


def trained_weights(sweep: list[dict[str, Any]], best: Mapping[str, Any] | None, metric: str) -> tuple[Any, str]:
    """The weights of the best rate of an evaluation that is done, and in words how good they are."""
    if best is None:
        raise SpecError(
            f"the teacher of this recipe diverged: {sweep[0]['reason']} (learning rate "
            f"{sweep[0]['learning_rate']:g}): give a lower learning rate, or another teacher"
        )
    entry = sweep[best["index"]]
    value = entry["validation"][metric]
    return best["model"], f"{metric} {value:.4g} on validation, learning rate {entry['learning_rate']:g}"
