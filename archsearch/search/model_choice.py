"""The choice by a model: costs are known, metrics are modelled, and what is expected to add most comes next."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from archsearch.analysis.front import non_dominated
from archsearch.analysis.objectives import Objective, Values, signs
from archsearch.arch import ArchSpec
from archsearch.registry import Registry
from archsearch.search.candidates import Candidate, Candidates
from archsearch.search.features import Encoded, Features
from archsearch.search.problem import Problem, Verdict
from archsearch.search.space import Space
from archsearch.search.surrogate import Surrogate
from archsearch.search.worth import worth

PARENTS = 24
"""Of the trials, how many are kept as parents of candidates of a large space: the front's first."""


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A candidate that was scored: its losses are means over ``seeds``; ``parts`` has those of some of its seeds each,
    with their number, which tell how much seeds differ. ``params``: the choices that make it, None of one that nobody
    proposed; ``within``: whether it may stand on the front."""

    arch: ArchSpec
    params: Mapping[str, Any] | None
    parts: tuple[tuple[Values, int], ...]
    within: bool = True

    @property
    def seeds(self) -> int:
        return sum(count for _, count in self.parts)

    @property
    def losses(self) -> Values:
        found: Values = sum((losses * count for losses, count in self.parts), np.zeros(1)) / self.seeds
        return found

    def again(self, losses: Values, seeds: int) -> _Told:
        """With means over more seeds: what is new follows from the difference. As many or fewer replace what it has."""
        new = seeds - self.seeds
        if new < 1:
            return replace(self, parts=((losses, seeds),))
        return replace(self, parts=(*self.parts, ((losses * seeds - self.losses * self.seeds) / new, new)))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known beside measurements: how a candidate is costed and judged, where mixers are found, and the best
    value that an objective can have, where there is one."""

    judge: Callable[[ArchSpec], Verdict]
    registry: Registry
    ideals: Mapping[str, float]

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """What a problem says of its candidates."""
        return cls(judge=problem.judge, registry=problem.registry, ideals=problem.ideals)


class ModelChoice:
    """Chooses candidates by expected hypervolume improvement.

    The first one is the cheapest, than which every other has to score more to add anything, unless references are known
    by then. Up to ``startup`` of its own follow those that the kernels find least alike. Then each measured objective
    has a surrogate, and running candidates count as if they had scored what theirs predict, so that several workers are
    not sent to one place. Equal seeds and equal trials in equal order give equal choices. References and other
    candidates beside the proposals teach it too, as far as they are of the space's mixers.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        judged: Judged,
        *,
        seed: int,
        startup: int,
    ) -> None:
        self._objectives, self._judge, self._startup = objectives, judged.judge, startup
        self._signs = signs(objectives)
        best = [judged.ideals.get(one.name, -np.inf * one.sign) for one in objectives]
        self._ideal: Values = np.array(best) * self._signs
        self._known = np.array([one.is_cost for one in objectives])
        self._rng = random.Random(seed)
        self._pool = Candidates(space, judged.judge, self._rng)
        self._features = Features(space, judged.registry)
        self._surrogates = {
            index: Surrogate(self._features.count) for index, one in enumerate(objectives) if not one.is_cost
        }
        self._told: dict[str, _Told] = {}
        self._running: dict[int | str, ArchSpec] = {}
        self._encoded: dict[str, Encoded] = {}

    def begun(self, number: int, arch: ArchSpec) -> None:
        """A candidate was proposed, by this choice or another one; `number` names it when it is told."""
        self._running[number] = arch
        self._pool.take(arch.digest)

    def beside(self, arch: ArchSpec, *, within: bool) -> None:
        """A candidate is trained that nobody proposed, as a reference is; ``within`` the limits or not."""
        self._pool.take(arch.digest)
        if within and arch.digest not in self._told and self._features.describe(arch):
            self._running[arch.digest] = arch

    def told_beside(self, arch: ArchSpec, values: Sequence[float] | None, *, seeds: int, within: bool) -> None:
        """What became of a candidate that nobody proposed."""
        self._running.pop(arch.digest, None)
        if self._features.describe(arch):
            self.replay(arch, None, values, seeds=seeds, within=within)

    def told(self, number: int, params: Mapping[str, Any], values: Sequence[float] | None, *, seeds: int = 1) -> None:
        """What became of a running candidate: its objective values, means over `seeds`, None where it gave none."""
        arch = self._running.pop(number)
        if values is not None:
            self.replay(arch, params, values, seeds=seeds)

    def replay(
        self,
        arch: ArchSpec,
        params: Mapping[str, Any] | None,
        values: Sequence[float] | None,
        *,
        seeds: int = 1,
        within: bool = True,
    ) -> None:
        """A candidate of an earlier run, or one that was told."""
        self._pool.take(arch.digest)
        held = self._told.get(arch.digest)
        if values is not None and (held is None or held.seeds != seeds):
            parts = ((np.array(values) * self._signs, seeds),)
            self._told[arch.digest] = _Told(arch=arch, params=params, parts=parts, within=within)

    def told_again(self, digest: str, values: Sequence[float] | None, *, seeds: int) -> None:
        """A candidate has other values, means over `seeds` now; None takes it out. One that was not told stays so."""
        held = self._told.pop(digest, None)
        if held is not None and values is not None:
            self._told[digest] = held.again(np.array(values) * self._signs, seeds)

    def choose(self) -> Mapping[str, Any] | None:
        """The choices of the next candidate; None where no candidate is known that can be trained."""
        pool = self._pool.among(self._parents())
        if not pool:
            return None
        self._rng.shuffle(pool)
        order = np.argsort(-self._weighed(pool), kind="stable")
        self._pool.keep([pool[index].arch.digest for index in order])
        return pool[int(order[0])].params

    def _weighed(self, pool: Sequence[Candidate]) -> Values:
        """What each candidate has for it: by what few are told it is how new it is."""
        own = sum(one.params is not None for one in self._told.values()) + len(self._running)
        few = own < self._startup or sum(one.within for one in self._told.values()) < 2
        return self._novelty(pool) if few or not self._surrogates else self._improvement(pool)

    def _parents(self) -> list[Mapping[str, Any]]:
        told = [(one.params, one.losses) for one in self._told.values() if one.params is not None]
        if not told:
            return []
        order = np.argsort(~non_dominated(np.array([losses for _, losses in told])), kind="stable")
        return [told[index][0] for index in order[:PARENTS]]

    def _encode(self, archs: Sequence[ArchSpec]) -> Encoded:
        """Encoded candidates, each made once; those that were let go are forgotten now and then."""
        if len(self._encoded) > 8192:
            self._encoded.clear()
        new = {arch.digest: arch for arch in archs if arch.digest not in self._encoded}
        if new:
            made = self._features.encode(list(new.values()))
            for index, digest in enumerate(new):
                self._encoded[digest] = made.row(index)
        return Encoded.stacked([self._encoded[arch.digest] for arch in archs])

    def _novelty(self, pool: Sequence[Candidate]) -> Values:
        """How little of each candidate is known from those that are told or running: its variance given theirs. Before
        any is, how cheap each is, over all costs by their ranges."""
        known = [one.arch for one in self._told.values()] + list(self._running.values())
        if not known:
            costs, _ = self._costs([candidate.verdict for candidate in pool])
            spread = np.ptp(costs, axis=0)
            cheap: Values = -(costs / np.where(spread > 0, spread, np.inf)).sum(axis=1)
            return cheap
        mine = self._encode([candidate.arch for candidate in pool])
        own = self._features.own(mine).mean(axis=0)
        theirs = self._encode(known)
        among = self._features.kernels(theirs, theirs).mean(axis=0) + 0.05 * np.eye(len(known))
        across = self._features.kernels(mine, theirs).mean(axis=0)
        variance: Values = own - np.einsum("mn,nm->m", across, np.linalg.solve(among, across.T))
        return variance

    def _improvement(self, pool: Sequence[Candidate]) -> Values:
        running = list(self._running.values())
        parts = [(one.arch, losses, seeds) for one in self._told.values() for losses, seeds in one.parts]
        told = self._encode([arch for arch, _, _ in parts])
        measured, seeds = np.array([part for _, part, _ in parts]), np.array([count for _, _, count in parts])
        losses = np.array([one.losses for one in self._told.values() if one.within])
        mine = self._encode([candidate.arch for candidate in pool])
        mean, deviation = self._costs([candidate.verdict for candidate in pool])
        pending, _ = self._costs([self._judge(arch) for arch in running])
        among = self._features.kernels(told, told)
        waiting = self._encode(running) if running else None
        joined = told.joined(waiting) if waiting is not None else told
        whole = self._features.kernels(joined, joined) if waiting is not None else among
        across, own = self._features.kernels(mine, joined), self._features.own(mine)
        for index, surrogate in self._surrogates.items():
            values = measured[:, index]
            surrogate.fit(among, values, seeds)
            if waiting is not None:
                believed, _ = surrogate.predict(self._features.kernels(waiting, told), self._features.own(waiting))
                pending[:, index] = believed
                values = np.concatenate([values, believed])
                surrogate.condition(whole, values, np.concatenate([seeds, np.ones(len(running))]))
            mean[:, index], deviation[:, index] = surrogate.predict(across, own)
        if len(pending):
            losses = np.vstack([losses, pending])
        return worth(mean, deviation, losses, self._known, self._ideal)

    def _costs(self, verdicts: Sequence[Verdict]) -> tuple[Values, Values]:
        """Losses of candidates with what is known of them, and 0 for their deviations."""
        found = np.array(
            [[verdict.costs.get(one.metric, 0.0) for one in self._objectives] for verdict in verdicts]
        ).reshape(len(verdicts), len(self._objectives))
        losses: Values = found * self._signs
        return losses, np.zeros_like(losses)
