"""Early stopping replayed over a table of ground truth: what it saves of training, and what it loses of the front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from archsearch.analysis.front import non_dominated
from archsearch.analysis.hypervolume import volume
from archsearch.analysis.objectives import Objective, Values
from archsearch.errors import SpecError, listing
from archsearch.registry import Registry
from archsearch.search.model_choice import Judged
from archsearch.search.plan import PATIENCE
from archsearch.search.problem import Problem, Verdict
from archsearch.search.sampler import Sampler
from archsearch.search.spec import EarlyStopTable, SearchSpec
from archsearch.search.stopping import Place, Stopping, aim_of
from archsearch.search.truth.measure import read_lines
from archsearch.search.truth.table import Row

_EDGE = 0.1
"""How far beyond the worst values, as a share of the range, the volume of a front reaches."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A table of ground truth: trainings by digest and place, of every candidate within the budget.

    ``losses`` are the objectives on test by digest, turned so that less is better, ``edge`` what volumes reach to.
    """

    problem: Problem
    trainings: Mapping[str, Mapping[Place, Row]]
    verdicts: Mapping[str, Verdict]
    losses: Mapping[str, Values]
    edge: Values

    @classmethod
    def read(cls, path: Path, registry: Registry, *, tasks: Sequence[str] = (), seeds: int | None = None) -> Truth:
        """From a file of `archsearch.search.truth.measure`, of all its tasks and seeds or of some `tasks` and the first
        `seeds`; raises `SpecError` where it lacks trainings of those."""
        lines = read_lines(path)
        headers = [line for line in lines if line["kind"] == "table"]
        if not headers:
            raise SpecError(f"{path} is no table of ground truth, or an empty one: give a file that has a line of it")
        problem = Problem.of(_part_of(headers[0]["spec"], tasks, seeds), registry)
        found: dict[str, dict[Place, Row]] = {}
        for line in lines:
            if line["kind"] == "run" and line["task"] in problem.tasks and line["seed"] in problem.search_seeds:
                found.setdefault(line["digest"], {})[line["task"], line["seed"]] = Row.of(line)
        verdicts = {arch.digest: problem.judge(arch) for arch in problem.space.all()}
        verdicts = {digest: verdict for digest, verdict in verdicts.items() if verdict.trainable}
        wanted = len(problem.tasks) * len(problem.search_seeds)
        lacking = sum(len(found.get(digest, ())) < wanted for digest in verdicts)
        if lacking:
            raise SpecError(
                f"{path} lacks trainings of {lacking} of {len(verdicts)} architectures: measure them first, as the "
                "figures of a part would be those of another space"
            )
        losses = {digest: _losses(problem, found[digest], verdict) for digest, verdict in verdicts.items()}
        known = np.array([values for values in losses.values() if np.isfinite(values).all()])
        edge = known.max(axis=0) + _EDGE * np.ptp(known, axis=0)
        return cls(problem=problem, trainings=found, verdicts=verdicts, losses=losses, edge=edge)

    def share(self, digests: Sequence[str]) -> float:
        """The volume that some candidates dominate, as a share of what all do."""
        return self._volume(digests) / self._volume(list(self.losses))

    def front(self, digests: Sequence[str]) -> set[str]:
        """Those that no other of them dominates."""
        if not digests:
            return set()
        kept = non_dominated(np.array([self.losses[digest] for digest in digests]))
        return {digest for digest, stands in zip(digests, kept, strict=True) if stands}

    def _volume(self, digests: Sequence[str]) -> float:
        values = np.array([self.losses[digest] for digest in digests])
        return volume(values[(values < self.edge).all(axis=1)], self.edge) if len(values) else 0.0


def _part_of(spec: Mapping[str, Any], tasks: Sequence[str], seeds: int | None) -> SearchSpec:
    """The spec of a table with some of its tasks and their objectives, and fewer seeds."""
    named = [table["name"] for table in spec["tasks"]]
    unknown = [task for task in tasks if task not in named]
    if unknown:
        raise SpecError(f'the table has no task "{unknown[0]}": it has {listing(named)}')
    if seeds is not None and not 1 <= seeds <= spec["recipe"]["seeds"]:
        raise SpecError(f"the table has {spec['recipe']['seeds']} seeds: {seeds} of them cannot be taken")
    kept = tasks or named
    maximize = [name for name in spec["objectives"]["maximize"] if name.rpartition(".")[0] in kept]
    return SearchSpec.from_dict(
        {
            **spec,
            "tasks": [table for table in spec["tasks"] if table["name"] in kept],
            "objectives": {**spec["objectives"], "maximize": maximize},
            "recipe": {**spec["recipe"], "seeds": spec["recipe"]["seeds"] if seeds is None else seeds},
        }
    )


def _losses(problem: Problem, trainings: Mapping[Place, Row], verdict: Verdict) -> Values:
    """The objectives on test, means over seeds, less being better; NaN where a training gave none."""
    return np.array([_loss(problem, objective, trainings, verdict) for objective in problem.objectives])


def _loss(
    problem: Problem, objective: Objective, trainings: Mapping[Place, Row], verdict: Verdict, split: str = "test"
) -> float:
    if objective.is_cost:
        return objective.sign * verdict.costs[objective.metric]
    aim = aim_of(objective, problem.tasks)
    by_seed = [
        min(aim.sign * getattr(trainings[task, seed], split).get(metric, np.nan) for task, metric in aim.parts)
        for seed in problem.search_seeds
    ]
    return -fmean(by_seed)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One search over the table: the candidates that were trained to the end, those that were stopped, the steps that
    were trained, and those that all of them would have taken."""

    complete: tuple[str, ...]
    stopped: tuple[str, ...]
    steps: int
    all_steps: int


def replay(truth: Truth, *, sampler: str, trials: int, seed: int, table: EarlyStopTable | None) -> Replay:
    """A search of `trials` candidates over the table, one at a time; without a `table` nothing is stopped."""
    problem = truth.problem
    search = problem.spec.search.model_validate({"sampler": sampler, "trials": trials})
    proposals = Sampler(problem.space, problem.objectives, search, seed=seed, judged=Judged.of(problem))
    rule = Stopping(table or EarlyStopTable(), problem.objectives, problem.tasks)
    complete: list[str] = []
    stopped: list[str] = []
    steps = all_steps = stale = 0
    most = min(trials, len(truth.verdicts))
    while len(complete) + len(stopped) < most:
        proposal = proposals.ask() if stale < PATIENCE else proposals.ask_random()
        digest, verdict = proposal.arch.digest, problem.judge(proposal.arch)
        known = digest in complete or digest in stopped
        stale = stale + 1 if known else 0
        if not verdict.trainable:
            proposals.refused(proposal.number, verdict)
            continue
        if not known:
            number = len(complete) + len(stopped)
            taken, all_of_it, ended = _trained(truth, rule, number, digest, verdict, stops=table is not None)
            steps, all_steps = steps + taken, all_steps + all_of_it
            (complete if ended else stopped).append(digest)
        if digest in stopped:
            proposals.failed(proposal.number)
        else:
            proposals.scored(proposal.number, _values(truth, digest, verdict), verdict)
    return Replay(complete=tuple(complete), stopped=tuple(stopped), steps=steps, all_steps=all_steps)


def _values(truth: Truth, digest: str, verdict: Verdict) -> dict[str, float]:
    """What the sampler is told: objectives on validation."""
    trainings = truth.trainings[digest]
    return {
        one.name: one.sign * _loss(truth.problem, one, trainings, verdict, "validation")
        for one in truth.problem.objectives
    }


def _trained(
    truth: Truth, rule: Stopping, number: int, digest: str, verdict: Verdict, *, stops: bool
) -> tuple[int, int, bool]:
    """Steps that were trained of a candidate, all of its steps, and whether it came to its end."""
    trainings, problem = truth.trainings[digest], truth.problem
    places = [(task, seed) for seed in problem.search_seeds for task in problem.tasks]
    rule.enter(number, verdict.costs)
    taken, all_steps = 0, sum(trainings[place].steps for place in places)
    for place in places:
        training = trainings[place]
        total = problem.spec.recipe.steps_for(problem.tasks[place[0]].seq_len)
        for index in range(1, len(training.curve)):
            rule.looked(number, place, training.curve[:index], total)
            if stops and rule.judge(number, place) is not None:
                rule.leave(number)
                return taken + training.curve[index - 1][0], all_steps, False
        rule.looked(number, place, training.curve, total)
        rule.ended(number, place, training.validation)
        taken += training.steps
        if stops and place != places[-1] and rule.judge(number, place) is not None:
            rule.leave(number)
            return taken, all_steps, False
    return taken, all_steps, True


@dataclass(frozen=True, kw_only=True)
class StoppingRow:
    """What a rule did over several seeds, means over them.

    ``saved`` is the share of the training steps of the candidates that were not trained; ``volume`` the share of the
    table's volume that the search found, ``volume_without`` that of the same seeds without the rule; ``stopped`` how
    many of its candidates were, ``wrongly`` how many of those would have stood on the front of all candidates that
    this search drew, and ``wrongly_true`` on the front of the whole table.
    """

    sampler: str
    table: EarlyStopTable
    seeds: int
    trials: int
    saved: float
    volume: float
    volume_without: float
    stopped: float
    wrongly: float
    wrongly_true: float


def studied(
    truth: Truth, *, samplers: Sequence[str], tables: Sequence[EarlyStopTable], trials: int, seeds: int
) -> Iterator[StoppingRow]:
    """A row for each sampler and rule."""
    true_front = truth.front(list(truth.losses))
    for sampler in samplers:
        plain = [replay(truth, sampler=sampler, trials=trials, seed=seed, table=None) for seed in range(seeds)]
        without = fmean(truth.share(found.complete) for found in plain)
        for table in tables:
            runs = [replay(truth, sampler=sampler, trials=trials, seed=seed, table=table) for seed in range(seeds)]
            fronts = [truth.front([*run.complete, *run.stopped]) for run in runs]
            yield StoppingRow(
                sampler=sampler,
                table=table,
                seeds=seeds,
                trials=trials,
                saved=fmean(1.0 - run.steps / run.all_steps for run in runs),
                volume=fmean(truth.share(run.complete) for run in runs),
                volume_without=without,
                stopped=fmean(len(run.stopped) for run in runs),
                wrongly=fmean(len(front & set(run.stopped)) for front, run in zip(fronts, runs, strict=True)),
                wrongly_true=fmean(len(true_front & set(run.stopped)) for run in runs),
            )
