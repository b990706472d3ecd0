"""The study of samplers: many searches a sampler over the cases of a table, and what came out, as plain data."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import numpy as np

from archsearch.registry import load_registry
from archsearch.search.survey import Survey, survey
from archsearch.search.tables.search import SamplerName
from archsearch.search.truth.archive import Trained
from archsearch.search.truth.case import Case
from archsearch.search.truth.medians import Middle, middle, ratio
from archsearch.search.truth.replay import posed, replay, table_seed
from archsearch.search.truth.score import REACHED, Score, Scoring
from archsearch.search.truth.table import TruthTable

SAMPLERS: tuple[str, ...] = get_args(SamplerName)
AT = (8, 16, 24, 32, 48, 64, 96)
"""Trials after which shares are told."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How searches of a study go: by a sampler, and with a share of the trials spent on second seeds."""

    sampler: str
    second_seeds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One search of a study. With ``spare`` a second seed does not count as fresh, whether it is used or not; with
    ``go_on`` a search that has not found 95% draws on until it has, though its answer is that after ``trials``."""

    table: Path
    objectives: tuple[str, ...]
    plan: Plan
    trials: int
    seed: int
    spare: bool = False
    go_on: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether it draws on: with second seeds a search does not."""
        return self.go_on and not self.plan.second_seeds


@dataclass(frozen=True, kw_only=True)
class Done:
    """A search of a study that has been run; ``seconds`` are those of its draws and its bookkeeping up to its answer,
    with the scoring."""

    job: Job
    score: Score
    refused: int
    repeated: int
    seconds: float


@cache
def _posed(table: Path, objectives: tuple[str, ...]) -> tuple[Case, Survey]:
    case = Case.of(TruthTable.load(table, load_registry()), objectives)
    return case, survey(case.problem)


def run_job(job: Job) -> Done:
    """Runs one search; the table and the case are read once a process."""
    case, looked = _posed(job.table, job.objectives)
    plan, go_on = job.plan, job.goes_on
    problem = posed(case, plan.sampler, trials=job.trials, seed=job.seed, second_seeds=plan.second_seeds, go_on=go_on)
    used = {table_seed(case, job.seed + step) for step in range(2 if job.spare else 1)}
    scoring = Scoring(case, unseen=[seed for seed in case.seeds if seed not in used], trials=job.trials)
    start, seconds, seen = time.process_time(), 0.0, 0

    def enough(trial: Trained) -> bool:
        nonlocal seconds, seen
        scoring.add(trial)
        seen += 1
        if seen <= job.trials:
            seconds = time.process_time() - start
        return go_on and scoring.arrived

    found = replay(case, problem, looked=looked, enough=enough)
    return Done(job=job, score=scoring.score(), refused=found.refused, repeated=found.repeated, seconds=seconds)


def run_jobs(jobs: Sequence[Job], processes: int) -> Iterator[Done]:
    """Runs searches, several at a time where `processes` is more than 1; yields each in the order of `jobs`."""
    if processes <= 1:
        yield from map(run_job, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_job, jobs)


def jobs_of(
    table: Path,
    cases: Sequence[tuple[str, ...]],
    plans: Sequence[Plan],
    *,
    trials: int,
    seeds: int,
    go_on: bool = False,
) -> list[Job]:
    """Every search of a study, case by case, plan by plan. Where one of the plans uses second seeds, these are fresh to
    none of them, so that all are held against the same."""
    spare = any(plan.second_seeds for plan in plans)
    return [
        Job(table=table, objectives=objectives, plan=plan, trials=trials, seed=seed, spare=spare, go_on=go_on)
        for objectives in cases
        for plan in plans
        for seed in range(seeds)
    ]


def batched(done: Iterable[Done], size: int) -> Iterator[list[Done]]:
    """Searches put together that differ by their seed alone, as they come."""
    held = iter(done)
    while batch := list(itertools.islice(held, size)):
        yield batch


def summary(done: Sequence[Done]) -> dict[str, Any]:
    """What the searches of one case and sampler came to, as plain data."""
    scores, trials = [one.score for one in done], done[0].job.trials
    curves = {
        "own": _curve([one.own[:trials] for one in scores]),
        "fresh": _curve([one.fresh[:trials] for one in scores]),
    }
    each = {
        "own": [one.to_own for one in scores],
        "fresh": [one.to_fresh for one in scores],
        "limit": [one.to_limit for one in scores],
    }
    return {
        "objectives": list(done[0].job.objectives),
        "sampler": done[0].job.plan.sampler,
        "second_seeds": done[0].job.plan.second_seeds,
        "searches": len(done),
        "trials": trials,
        "go_on": done[0].job.goes_on,
        "reached": REACHED,
        "trials_to_95": {name: asdict(middle(values)) for name, values in each.items()},
        "limit": asdict(middle([one.limit for one in scores])),
        "share_at": {
            name: {str(trial): curve[min(trial, len(curve)) - 1] for trial in AT if trial <= trials}
            for name, curve in curves.items()
            if curve
        },
        "curve": {name: [round(point["median"], 4) for point in curve] for name, curve in curves.items()},
        "unconfirmed_points": _mean([one.unconfirmed for one in scores]),
        "unconfirmed_best": _mean([one.best_unconfirmed for one in scores]),
        "steps": fmean(one.steps for one in scores),
        "refused": fmean(one.refused for one in done),
        "repeated": fmean(one.repeated for one in done),
        "seconds": fmean(one.seconds for one in done),
        "each_trials_to_95": each,
    }


def with_ratios(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same with ``of_random``: how many trials to 95% each sampler needs for one of random draws in the same case,
    where these are among them. Pairs are searches of one number, as they saw the values of one seed."""
    drawn = {
        tuple(one["objectives"]): one["each_trials_to_95"]
        for one in found
        if one["sampler"] == "random" and not one["second_seeds"]
    }
    told = []
    for one in found:
        theirs = drawn.get(tuple(one["objectives"]))
        held = {} if theirs is None else _ratios(one["each_trials_to_95"], theirs)
        told.append({**one, "of_random": held})
    return told


def _ratios(mine: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return {name: asdict(ratio(mine[name], theirs[name])) for name in mine}


def _curve(values: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """The median share after each trial with its interval; a search that ended early keeps what it had."""
    length = max((len(one) for one in values), default=0)
    padded = [[*one, *[one[-1]] * (length - len(one))] for one in values if one]
    return [asdict(_rounded(middle(column))) for column in zip(*padded, strict=True)]


def _rounded(found: Middle) -> Middle:
    return Middle(**{name: round(value, 4) for name, value in asdict(found).items()})


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return fmean(known) if known else float("nan")
