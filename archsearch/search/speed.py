"""Speed of learning in a search: objectives that are timed by full attention, whose training they wait for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from archsearch.analysis.objectives import Objective
from archsearch.analysis.speed import LEAST_LOOKS, REFERENCE, SHARES, looks_of, speed_of, target_of
from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.recipe import Recipe
from archsearch.storage import MetricValue, TrialRecord


def is_speed(metric: str) -> bool:
    """Whether a metric, with or without its task, is one of speed."""
    return metric.rpartition(".")[2] in SHARES


def speed_objective(name: str, recipe: Recipe, seq_len: int) -> Objective:
    """The objective `name`, "TASK.tokens_to_half", of a training of `recipe` on sequences of `seq_len` tokens; raises
    `SpecError` where it looks at validation too seldom."""
    steps = recipe.steps_for(seq_len)
    looks = looks_of(recipe, seq_len)
    if looks < LEAST_LOOKS:
        raise SpecError(
            f'objective "{name}": recipe.eval_every = {recipe.eval_every} of {steps} steps is {looks} '
            f"look{'s' * (looks != 1)} at validation, and at least {LEAST_LOOKS} tell how soon something is learnt: "
            f"set recipe.eval_every = {max(1, steps // 20)}"
        )
    return Objective(name=name, direction="minimize", budget=float(steps * recipe.batch_size * seq_len))


def reference_of(objectives: Iterable[Objective], trained: Iterable[ArchSpec]) -> ArchSpec | None:
    """The model that times the others, full attention in every layer: the first one of what a search is sure to train,
    its references and what its list names; None where no objective is timed. Raises `SpecError` where there is none."""
    timed = next((objective.name for objective in objectives if is_speed(objective.metric)), None)
    if timed is None:
        return None
    for arch in trained:
        if all(layer.mixer == REFERENCE for layer in arch.layers):
            return arch
    raise SpecError(
        f'objective "{timed}" is timed by what "{REFERENCE}" in every layer learns, and no such model is sure to be '
        f'trained: set search.references = true, or list "{REFERENCE}" in search.references or among the '
        "space.architectures of a list"
    )


class Timing:
    """What the trainings of the reference reached, by task and seed, and what follows for those of others."""

    def __init__(
        self, objectives: Iterable[Objective], reference: ArchSpec | None, tasks: Iterable[str], seeds: int
    ) -> None:
        """``seeds`` is the largest number of seeds that a mean is taken over."""
        self._timed = [objective for objective in objectives if is_speed(objective.metric)]
        self._digest = "" if reference is None else reference.digest
        self._tasks, self._seeds = tuple(tasks), seeds
        self._runs: dict[tuple[str, int], Mapping[str, Any] | None] = {}
        self.news = False
        """Whether anything was learnt since somebody set this to False."""

    @property
    def reference(self) -> str:
        """The digest of the reference, empty where nothing is timed."""
        return self._digest

    def learn(self, record: TrialRecord) -> None:
        """Takes a trial with its measurements, once it has ended; others than the reference's say nothing here. A seed
        that it has no measurement of leaves none to be timed by."""
        if record.digest != self._digest:
            return
        self.news = True
        found = {(measured.task, measured.seed): measured.payload for measured in record.measurements}
        for seed in record.seeds:
            for task in self._tasks:
                self._runs[task, seed] = found.get((task, seed)) or self._runs.get((task, seed))

    def times(self, seed: int) -> bool:
        """Whether trainings with a seed can be timed: nothing is to be, or the reference's tells by when."""
        runs = [(self._runs.get((one.metric.rpartition(".")[0], seed)), one.metric) for one in self._timed]
        return all(run and target_of(run, SHARES[metric.rpartition(".")[2]]) is not None for run, metric in runs)

    def waits(self, record: TrialRecord) -> bool:
        """Whether a trial that is measured has to wait for the reference's training."""
        if not self._timed or record.digest == self._digest:
            return False
        if any(measured.status != "complete" for measured in record.measurements):
            return False
        return any((task, seed) not in self._runs for task in self._tasks for seed in record.seeds)

    def metrics(self, record: TrialRecord, splits: Sequence[str]) -> Iterator[MetricValue]:
        """Tokens by objective and seed, where they can be told. Validation is where training is looked at, so that the
        number is the same on all `splits`."""
        by_run = {(measured.task, measured.seed): measured.payload for measured in record.measurements}
        for objective in self._timed:
            task, _, metric = objective.metric.rpartition(".")
            for seed in record.seeds:
                timer, mine = self._runs.get((task, seed)), by_run.get((task, seed))
                target = target_of(timer, SHARES[metric]) if timer else None
                found = speed_of(mine, target) if mine and target else None
                if found is not None:
                    tokens = found.censored(self._seeds)
                    yield from (
                        MetricValue(name=objective.metric, split=split, value=tokens, seed=seed) for split in splits
                    )

    def lacking(self, record: TrialRecord) -> str:
        """Why a complete trial has no value of a timed objective, in a sentence; empty where it has them all."""
        for objective in self._timed:
            task, _, metric = objective.metric.rpartition(".")
            for seed in record.seeds:
                timer = self._runs.get((task, seed))
                if timer is None or target_of(timer, SHARES[metric]) is None:
                    why = "was not trained to its end" if timer is None or timer["status"] != "complete" else _FLAT
                    return f"no {objective.name}: {REFERENCE}, by which it is timed, {why} (seed {seed})"
        return ""


_FLAT = "gained next to nothing above chance: train longer, or on an easier task"
