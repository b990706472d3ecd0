"""The sampler: an Optuna study in memory that proposes candidates, is told what became of them, and can be rebuilt."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from archsearch.analysis.objectives import Objective
from archsearch.arch import ArchSpec
from archsearch.search.genes import LayerGenes, LayerNSGAII, LayerNSGAIII
from archsearch.search.model_choice import Judged, ModelChoice
from archsearch.search.problem import Verdict
from archsearch.search.space import RandomDraw, ReplayDraw, Space
from archsearch.search.tables.search import SearchTable

UNEXERCISED = "unexercised"
"""The constraint that a candidate violates whose sparsity cannot act at the tasks' lengths."""

ARRANGEMENT = "arrangement"
"""The constraint that a candidate violates whose layers cannot stand as they do."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A candidate that the sampler drew; ``number`` names it when the sampler is told."""

    number: int
    arch: ArchSpec
    params: Mapping[str, Any]


class Sampler:
    """Proposes candidates of a space and learns from what they scored.

    Every proposal must be told once: `scored`, `refused` or `failed`. ``drawn`` is how many proposals a search has
    stored already: with the seed it decides the next one, so that a resumed search does not repeat its draws.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        table: SearchTable,
        *,
        seed: int,
        drawn: int = 0,
        judged: Judged | None = None,
    ) -> None:
        """``judged`` is what a sampler needs that chooses among candidates whose costs it knows."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._objectives, self._population = space, objectives, table.first_random
        seed = int(np.random.SeedSequence([seed, drawn]).generate_state(1)[0])
        self._random = RandomDraw(random.Random(seed))
        self._optuna = make_sampler(table, seed)
        self._directions = [objective.direction for objective in objectives]
        self._study = self._new_study()
        self._drawn = 0
        self._open: dict[int, Trial] = {}
        self._digests: list[str] = []
        self._again: dict[str, list[float] | None] = {}
        self._learns = table.sampler not in ("ehvi", "random")
        self._worst: dict[str, float] = {}
        self._complete = 0
        self._model: ModelChoice | None = None
        if table.sampler == "ehvi":
            assert judged is not None
            self._model = ModelChoice(space, objectives, judged, seed=seed, startup=table.first_random)

    def ask(self) -> Proposal:
        """The next candidate."""
        self._correct()
        chosen = self._model.choose() if self._model is not None else None
        return self._ask() if chosen is None else self.ask_for(chosen)

    def _ask(self) -> Proposal:
        trial = self._study.ask()
        arch = self._space.draw(trial)
        number, self._drawn = self._drawn, self._drawn + 1
        self._open[number] = trial
        self._digests.append(arch.digest)
        if self._model is not None:
            self._model.begun(number, arch)
        return Proposal(number=number, arch=arch, params=trial.params)

    def ask_random(self) -> Proposal:
        """A candidate drawn uniformly, choice by choice, for a sampler that repeats itself."""
        recorded = _Recorder(self._random)
        self._space.draw(recorded)
        return self.ask_for(recorded.params)

    def ask_for(self, params: Mapping[str, Any]) -> Proposal:
        """The candidate of given choices."""
        self._correct()
        self._study.enqueue_trial(dict(params))
        return self._ask()

    def scored(self, number: int, values: Mapping[str, float], verdict: Verdict, *, seeds: int = 1) -> None:
        """A candidate's objective values by name, taken on validation, means over `seeds`; without all of them, finite,
        it has failed."""
        told = self._values(values)
        if told is None:
            self.failed(number)
            return
        if self._model is not None:
            self._model.told(number, self._open[number].params, told, seeds=seeds)
        self._tell(number, told, verdict)

    def scored_again(self, digest: str, values: Mapping[str, float] | None, *, seeds: int) -> None:
        """A candidate that was scored has other values, means over `seeds` now, or none, as a seed diverged. One that
        was never proposed is left out."""
        told = self._values(values) if values is not None else None
        if self._model is not None:
            self._model.told_again(digest, told, seeds=seeds)
        elif self._learns and digest in self._digests:
            self._again[digest] = told

    def beside(self, arch: ArchSpec, verdict: Verdict) -> None:
        """A candidate is trained that the sampler did not propose: a reference, or one that somebody added."""
        if self._model is not None:
            self._model.beside(arch, within=verdict.trainable)

    def scored_beside(
        self, arch: ArchSpec, values: Mapping[str, float] | None, verdict: Verdict, *, seeds: int = 1
    ) -> None:
        """Objective values of such a candidate, None where it gave none; only a model learns of them."""
        if self._model is not None:
            told = self._values(values) if values is not None else None
            self._model.told_beside(arch, told, seeds=seeds, within=verdict.trainable)

    def refused(self, number: int, verdict: Verdict) -> None:
        """A candidate that nobody trains, being over budget or not exercised: its costs and excesses are told."""
        if self._model is not None:
            self._model.told(number, self._open[number].params, None)
        self._tell(number, self._untrained(verdict), verdict)

    def failed(self, number: int) -> None:
        """A candidate that gave no values."""
        if self._model is not None:
            self._model.told(number, self._open[number].params, None)
        self._study.tell(self._open.pop(number), state=TrialState.FAIL)

    def replay(
        self, params: Mapping[str, Any], values: Mapping[str, float] | None, verdict: Verdict, *, seeds: int = 1
    ) -> None:
        """Puts a candidate of an earlier run back: scored, or refused when `values` is None and it is not trainable.

        One that gave no values is left out. Raises `SpecError` when the space no longer offers its choices.
        """
        recorded = ReplayDraw(params)
        arch = self._space.draw(recorded)
        told = self._values(values) if values is not None else None
        if self._model is not None:
            self._model.replay(arch, params, told, seeds=seeds)
        if values is None and not verdict.trainable:
            told = self._untrained(verdict)
        if told is None:
            return
        attributes = {}
        if isinstance(self._optuna, LayerGenes):
            attributes = self._optuna.generation_attributes(self._complete // self._population)
        self._complete += 1
        self._digests.append(arch.digest)
        self._study.add_trial(
            optuna.create_trial(
                params=dict(params),
                distributions=dict(recorded.distributions),
                values=told,
                system_attrs=attributes,
                constraints=_constraints(verdict),
            )
        )

    def _new_study(self) -> Study:
        return optuna.create_study(directions=self._directions, sampler=self._optuna)

    def _correct(self) -> None:
        """Makes the study anew where candidates have other values since: what was told to Optuna cannot be changed."""
        if not self._again:
            return
        again, self._again = self._again, {}
        before, digests = self._study, self._digests
        self._study, self._digests = self._new_study(), []
        for digest, trial in zip(digests, before.get_trials(), strict=True):
            if not trial.state.is_finished():
                continue
            if digest in again and trial.state == TrialState.COMPLETE:
                trial.values = again[digest]
                trial.state = TrialState.COMPLETE if trial.values is not None else TrialState.FAIL
            self._study.add_trial(trial)
            self._digests.append(digest)
        for number, asked in self._open.items():
            self._study.enqueue_trial(asked.params)
            self._open[number] = self._study.ask()
            self._digests.append(self._space.draw(self._open[number]).digest)

    def _tell(self, number: int, values: Sequence[float], verdict: Verdict) -> None:
        trial = self._open.pop(number)
        for name, value in _constraints(verdict).items():
            trial.set_constraint(name, value)
        self._study.tell(trial, list(values))
        self._complete += 1

    def _values(self, values: Mapping[str, float]) -> list[float] | None:
        told = [values.get(objective.name, math.nan) for objective in self._objectives]
        if not all(map(math.isfinite, told)):
            return None
        for objective, value in zip(self._objectives, told, strict=True):
            worse = max if objective.direction == "minimize" else min
            self._worst[objective.name] = worse(self._worst.get(objective.name, value), value)
        return told

    def _untrained(self, verdict: Verdict) -> list[float]:
        """Costs as they are, the rest as bad as the worst so far (0 before any): constraints keep it off the front."""
        return [
            verdict.costs.get(objective.metric, self._worst.get(objective.name, 0.0)) for objective in self._objectives
        ]


class _Recorder:
    """Choices of another draw, kept."""

    def __init__(self, draw: RandomDraw) -> None:
        self._draw = draw
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        chosen = self.params[name] = self._draw.suggest_categorical(name, choices)
        return chosen


def _constraints(verdict: Verdict) -> dict[str, float]:
    """Every limit's excess, at most 0 where it is met: GP needs the same names of every trial."""
    return {
        **verdict.slack,
        UNEXERCISED: float(len(verdict.unexercised)),
        ARRANGEMENT: float(verdict.refusal is not None),
    }


def make_sampler(table: SearchTable, seed: int) -> BaseSampler:
    """The Optuna sampler of ``[search]``."""
    size = table.first_random
    if table.sampler in ("nsga2", "nsga3"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # NSGA-III has been experimental since Optuna 3.2
            kind = LayerNSGAII if table.sampler == "nsga2" else LayerNSGAIII
            sampler = kind(population_size=size, seed=seed)
        sampler.genes_seed = seed
        return sampler
    if table.sampler == "tpe":
        return TPESampler(n_startup_trials=size, seed=seed)
    if table.sampler == "gp":
        return GPSampler(n_startup_trials=size, seed=seed, warn_independent_sampling=False)
    return RandomSampler(seed=seed)
