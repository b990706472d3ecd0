"""Evaluation: one architecture on one task with one seed, over the recipe's learning rates."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError, listing
from archsearch.exercise import unexercised_layers
from archsearch.kernels.forms import held
from archsearch.laws import judged_by_steps, untrainable
from archsearch.measurement import Measurement
from archsearch.model.process_settings import usual_settings
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.tasks import CheckedTask, Task
from archsearch.training.blame import first_fault
from archsearch.training.checkpoint import Checkpoint, told
from archsearch.training.evaluated import evaluated
from archsearch.training.fit import Fit
from archsearch.training.forms import settled_forms
from archsearch.training.group import ALONE, Group
from archsearch.training.judge import Judge, NotFiniteError, autocast
from archsearch.training.key import device_kind, key_of_run, parts_versions, runtime_versions
from archsearch.training.lessons import Lessons, trained_weights
from archsearch.training.memory import check_memory
from archsearch.training.promises import check_promises, check_restored

_ENTRY = {"learning_rate", "status", "reason", "steps", "solved_at", "validation", "seconds", "curve"}
"""What is kept of each learning rate."""

_COMPILERS = ("g++", "clang++", "c++")
"""Any of these compiles what `torch.compile` makes for the CPU."""

_REASONS = 10
"""Learning rates whose reasons are told where all diverged."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an evaluation is: ``step`` of ``total_steps`` over all learning rates, and its latest look."""

    step: int
    total_steps: int
    learning_rate: float
    metric: str
    value: float | None


class Evaluation:
    """A sweep over learning rates that can be advanced in slices, checkpointed, and taken up again.

    With ``checkpoint``, a path or a URL, a file is written there every ``recipe.checkpoint_seconds`` and read if it
    exists and holds the same evaluation; `discard` removes it. A file that cannot be read or written is logged, and
    ends nothing.

    Several processes of one ``group`` train it together: each makes the same evaluation, advances it until it is done,
    for whatever seconds, and asks for the measurement, which all have. The first reads and writes the checkpoint; one
    of any number of processes goes on in any other.

    ``evaluators``, by name, are asked for numbers of their own about the model that is chosen.

    Raises `SpecError` for a device that is not there, for an architecture that cannot be trained, and for one that
    needs more memory than there is; `PluginError` for a task that is not what it says.
    """

    def __init__(
        self,
        arch: ArchSpec,
        task: Task,
        recipe: Recipe,
        seed: int,
        *,
        registry: Registry,
        checkpoint: Path | str | None = None,
        group: Group = ALONE,
        evaluators: Sequence[str] = (),
    ) -> None:
        recipe.check_workers(group.size)
        self._group = group
        self._evaluators = tuple(evaluators)
        self.arch, self.task, self.recipe, self.seed, self.registry = arch, task, recipe, seed, registry
        self.device = _device(recipe)
        self._judge = _checked_judge(arch, task, recipe, seed, registry, self.device, group)
        self._forms = settled_forms(arch, recipe, registry, device=self.device, by_steps=self._judge.by == "steps")
        self.key = key_of_run(arch, task, recipe, seed, registry, self._forms, self._evaluators)
        self._checkpoint = Checkpoint(checkpoint) if checkpoint is not None else None
        self._saved_at = time.monotonic()
        self._sweep: list[dict[str, Any]] = []
        self._best: dict[str, Any] | None = None
        self._fit: Fit | None = None
        self._promised = False
        with self._settings():
            self._lessons = Lessons.of(arch, self._judge, seed, registry, checkpoint=checkpoint, train=self._teacher)
            if self._lessons.ready:
                self._restore()

    @property
    def done(self) -> bool:
        """Whether every learning rate was tried."""
        return len(self._sweep) == len(self.recipe.learning_rates)

    @property
    def progress(self) -> Progress:
        """Where the evaluation stands."""
        per_rate = self.recipe.steps_for(self.task.seq_len)
        index = min(len(self._sweep), len(self.recipe.learning_rates) - 1)
        look = self._fit.curve[-1][self.task.metric] if self._fit and self._fit.curve else None
        if look is None and self._sweep:
            look = self._sweep[-1]["validation"].get(self.task.metric)
        taught, lessons = self._lessons.steps
        return Progress(
            step=taught + len(self._sweep) * per_rate + (self._fit.step if self._fit else 0),
            total_steps=lessons + per_rate * len(self.recipe.learning_rates),
            learning_rate=self.recipe.learning_rates[index],
            metric=self.task.metric,
            value=look,
        )

    @property
    def looks(self) -> list[tuple[int, float]]:
        """Every look at validation so far: the step, counted over all learning rates and without a teacher's, and the
        task's metric, the best of what the rates before came to and of this look."""
        per_rate, metric = self.recipe.steps_for(self.task.seq_len), self.task.metric
        better = max if self.task.direction == "maximize" else min
        curves = [entry["curve"] for entry in self._sweep] + ([self._fit.curve] if self._fit else [])
        before: list[float] = []
        found: list[tuple[int, float]] = []
        for index, curve in enumerate(curves):
            values = ((int(look["step"]), float(look[metric])) for look in curve)
            found += [(index * per_rate + step, better([*before, value])) for step, value in values]
            if index < len(self._sweep) and metric in self._sweep[index]["validation"]:
                before.append(float(self._sweep[index]["validation"][metric]))
        return found

    def advance(self, seconds: float) -> Progress:
        """Trains for about `seconds`, at least one step; stops early when a learning rate is done. A teacher that is
        nowhere stored is trained first; raises `SpecError` where it diverges."""
        if not self._lessons.ready:
            return self._learn(seconds)
        with self._settings():
            fit = self._fit = self._fit or self._new_fit()
            start = time.perf_counter()
            while not fit.done:
                fit.advance()
                if time.perf_counter() - start >= seconds:
                    break
            fit.seconds += time.perf_counter() - start
            if fit.done:
                self._close(fit)
            self._save()
        return self.progress

    def _learn(self, seconds: float) -> Progress:
        self._lessons.advance(seconds)
        if self._lessons.ready:
            with self._settings():
                self._restore()
        return self.progress

    def _teacher(self, arch: ArchSpec, checkpoint: Path | str | None) -> Evaluation:
        """The training of this evaluation's teacher."""
        return Evaluation(
            arch,
            self.task,
            self.recipe.untaught,
            self.seed,
            registry=self.registry,
            checkpoint=checkpoint,
            group=self._group,
        )

    def trained(self) -> tuple[Mapping[str, Any], str]:
        """The weights of the best rate once `done`, and in words how good they are; raises `SpecError` for none."""
        return trained_weights(self._sweep, self._best, self.task.metric)

    def measurement(self) -> Measurement:
        """The result; raises `SpecError` before `done`."""
        if not self.done:
            raise SpecError("the evaluation is not done: advance it until `done`")
        with self._settings():
            return self._measurement()

    def discard(self) -> None:
        """Removes the checkpoint."""
        if self._checkpoint is not None and self._group.leads:
            self._checkpoint.remove()

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """What is the same in every part of the trial, whatever happens around it."""
        with usual_settings(self.recipe.threads), held(self._forms):
            yield

    def _new_fit(self) -> Fit:
        return self._fit_at(self.recipe.learning_rates[len(self._sweep)])

    def _fit_at(self, rate: float) -> Fit:
        fit = Fit(
            self.arch,
            self._judge,
            seed=self.seed,
            rate=rate,
            resolver=self.registry,
            teaching=self._lessons.teaching,
        )
        if not self._promised:
            check_promises(fit.model, self.task.seq_len, self.registry)
            self._promised = True
        return fit

    def _close(self, fit: Fit) -> None:
        validation = fit.validation() if fit.diverged_at is None else {}
        diverged = fit.diverged_at is not None
        entry = {
            "learning_rate": fit.rate,
            "status": "diverged" if diverged else "complete",
            "reason": fit.reason,
            "steps": fit.step,
            "solved_at": fit.solved_at,
            "validation": validation,
            "seconds": fit.seconds,
            "curve": fit.curve,
        }
        if not diverged and self._beats(validation[self.task.metric]):
            self._best = {"index": len(self._sweep), "model": fit.weights()}
            check_restored(fit, self._fit_at(fit.rate))
        self._sweep.append(entry)
        self._fit = None

    def _beats(self, value: float) -> bool:
        if self._best is None:
            return True
        held = self._sweep[self._best["index"]]["validation"][self.task.metric]
        return bool(value > held if self.task.direction == "maximize" else value < held)

    def _measurement(self) -> Measurement:
        best = self._sweep[self._best["index"]] if self._best else None
        test, reason = self._test(best) if best else ({}, self._reasons())
        best = best if reason is None else None
        own = self._own(best, test) if best and self._evaluators else {"validation": {}, "test": {}}
        steps = sum(entry["steps"] for entry in self._sweep)
        seconds = sum(entry["seconds"] for entry in self._sweep)
        tokens = steps * self.recipe.batch_size * self.task.seq_len
        model = self.arch.model.model_copy(update={"vocab_size": self.task.vocab_size})
        cost = CostModel(self.registry).cost(ArchSpec(model=model, layers=self.arch.layers), self.task.seq_len)
        cost_json = cost.to_json()
        del cost_json["layers"]
        return Measurement(
            key=self.key,
            digest=self.arch.digest,
            pattern=self.arch.pattern(self.registry),
            arch=self.arch.to_json(),
            task=self.task.label,
            task_options=self.task.to_json(),
            metric=self.task.metric,
            direction=self.task.direction,
            recall=self.task.recall,
            chance=self.task.chance,
            recipe=self.recipe.model_dump(mode="json"),
            seed=self.seed,
            status="complete" if best else "diverged",
            reason=reason,
            judged=self._judge.by,
            judged_reason=judged_by_steps(self.arch, self.registry),
            learning_rate=best["learning_rate"] if best else None,
            steps=best["steps"] if best else steps,
            solved_at=best["solved_at"] if best else None,
            validation={**best["validation"], **own["validation"]} if best else {},
            test={**test, **own["test"]},
            sweep=tuple({key: value for key, value in entry.items() if key != "curve"} for entry in self._sweep),
            curve=tuple(best["curve"] if best else self._sweep[-1]["curve"]),
            unexercised=unexercised_layers(self.arch, self.task.label, self.task.seq_len, self.registry),
            seq_len=self.task.seq_len,
            params=cost.params,
            costs=cost_json,
            tokens_per_second=tokens / seconds if seconds else 0.0,
            train_seconds=seconds,
            peak_memory_bytes=_peak_memory(self.device),
            versions={**self._runtime(), **parts_versions(self.arch, self.task, self.registry, self._evaluators)},
        )

    def _runtime(self) -> dict[str, str]:
        workers = {"workers": str(self._group.size)} if self._group.size > 1 else {}
        kernels = {} if self._forms is None else {"kernels": self._forms.told}
        teacher = {} if self._lessons.told is None else {"teacher": f"{self.recipe.teacher}: {self._lessons.told}"}
        return {**runtime_versions(self.device), **workers, **kernels, **teacher}

    def _reasons(self) -> str:
        told = [f"{entry['reason']} (learning rate {entry['learning_rate']:g})" for entry in self._sweep[:_REASONS]]
        more = len(self._sweep) - len(told)
        return "; ".join([*told, f"and at {more} more learning rates"] if more else told)

    def _test(self, best: Mapping[str, Any]) -> tuple[dict[str, float], str | None]:
        """Metrics on test of the rate that was chosen; where an output is not finite, none, and the reason."""
        assert self._best is not None
        fit = self._fit_at(best["learning_rate"])
        fit.load_weights(self._best["model"])
        progress = best["steps"] / fit.total_steps
        try:
            return self._judge.metrics(fit.model, "test", progress=progress), None
        except NotFiniteError as error:
            with autocast(self.recipe, self.device):
                by_steps = self._judge.by == "steps"
                fault = first_fault(fit.model, error.tokens, progress=progress, by_steps=by_steps)
            return {}, str(error) if fault is None else f"{error}: {fault}"

    def _own(self, best: Mapping[str, Any], test: Mapping[str, float]) -> Mapping[str, Mapping[str, float]]:
        """What the evaluators find of the rate that was chosen, by split."""
        assert self._best is not None
        evaluators = [self.registry.evaluator(name) for name in self._evaluators]
        taken = {"validation": best["validation"], "test": test}
        progress = best["steps"] / self.recipe.steps_for(self.task.seq_len)
        fit_anew = partial(self._fit_at, best["learning_rate"])
        return evaluated(evaluators, self.arch, fit_anew, self._best["model"], taken, progress=progress)

    def _save(self) -> None:
        due = time.monotonic() - self._saved_at >= self.recipe.checkpoint_seconds
        if self._checkpoint is None or not due or self.done or not self._group.leads:
            return
        fit = self._fit.state_dict() if self._fit else None
        self._checkpoint.write({"key": self.key, "sweep": self._sweep, "best": self._best, "fit": fit})
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        leads = self._checkpoint is not None and self._group.leads
        content = self._checkpoint.read(self.key, self.device) if self._checkpoint is not None and leads else None
        content = self._group.tell(content, self.device)
        if content is None:
            return
        try:
            self._go_on(content)
        except Exception as error:  # foreign data: a file of any content, each of which is refused in its own way
            if self._checkpoint is not None and leads:
                self._checkpoint.ignore(told(error))

    def _go_on(self, content: Mapping[str, Any]) -> None:
        """Takes up what `_save` wrote, all of it or nothing."""
        sweep, best, state = list(content["sweep"]), content["best"], content["fit"]
        rates = self.recipe.learning_rates
        if len(sweep) >= len(rates) or any(set(entry) != _ENTRY for entry in sweep):
            raise ValueError("its sweep is not one of these learning rates")
        fit = self._fit_at(rates[len(sweep)])
        if best is not None:
            if self.task.metric not in sweep[best["index"]]["validation"]:
                raise ValueError("its best rate has no validation")
            fit.model.load_state_dict(best["model"])
            fit = self._fit_at(rates[len(sweep)])
        if state is not None:
            fit.load_state_dict(state)
        self._sweep, self._best, self._fit = sweep, best, fit if state is not None else None


def evaluate(
    arch: ArchSpec,
    task: Task,
    recipe: Recipe,
    seed: int,
    *,
    registry: Registry,
    checkpoint: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    evaluators: Sequence[str] = (),
) -> Measurement:
    """Trains `arch` on `task` and measures it; equal arguments give equal metrics and curves on the CPU.

    Raises as `Evaluation` does. What is not finite is no error: the measurement's status is "diverged", and its reason
    has the step and the layer.
    """
    evaluation = Evaluation(arch, task, recipe, seed, registry=registry, checkpoint=checkpoint, evaluators=evaluators)
    while not evaluation.done:
        progress = evaluation.advance(0.5)
        if on_progress is not None:
            on_progress(progress)
    return evaluation.measurement()


def _checked_judge(
    arch: ArchSpec, task: Task, recipe: Recipe, seed: int, registry: Registry, device: torch.device, group: Group
) -> Judge:
    """How `arch` is judged on `task`, once both are known to be such as can be trained on this machine."""
    if recipe.compile:
        check_compiler(device)
    refused = untrainable(arch, registry)
    if refused is not None:
        raise SpecError(refused)
    checked = CheckedTask.of(task)
    check_memory(arch, task, recipe, registry, device)
    scored = checked.check_draws(seed=seed, batch_size=recipe.batch_size)
    check_memory(arch, task, recipe, registry, device, scored=scored)
    by_steps = judged_by_steps(arch, registry) is not None
    return Judge(task=checked, recipe=recipe, device=device, by="steps" if by_steps else "forward", group=group)


def _device(recipe: Recipe) -> torch.device:
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise SpecError('recipe.device = "cuda", but torch finds no CUDA device here: use "cpu" or "auto"')
    return torch.device(device_kind(recipe.device))


def check_compiler(device: torch.device) -> None:
    """Raises `SpecError` where `torch.compile` would find no compiler for its code on the CPU."""
    named = os.environ.get("CXX")
    if device.type == "cpu" and not any(map(shutil.which, [named] if named else _COMPILERS)):
        raise SpecError(
            f"recipe.compile = true needs a C++ compiler, and {named or listing(_COMPILERS)} is not to be found here: "
            "install g++, let CXX name one, or leave compile out"
        )


def _peak_memory(device: torch.device) -> int:
    """Peak bytes of the device's allocator, or of this whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
