"""Candidates that a sampler may choose among: all of a small space, of a large one random ones and kin of the best."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsearch.arch import ArchSpec
from archsearch.search.problem import Verdict
from archsearch.search.space import RandomDraw, Space

MOST = 2048
"""Series of choices that are gone through; a space that has more is drawn from."""
FRESH, HELD, PURE = 32, 512, 64
"""Of a large space: candidates that come in by each call, how many are held, and pure ones at the beginning."""
TRIES = 2
"""Draws for each candidate that is wanted: most may be over budget."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate with the choices that lead to it, and what is known before training."""

    arch: ArchSpec
    params: Mapping[str, Any]
    verdict: Verdict


class Candidates:
    """The trainable candidates that are known, by digest; none that was taken out comes back."""

    def __init__(self, space: Space, judge: Callable[[ArchSpec], Verdict], rng: random.Random) -> None:
        self._space, self._judge, self._rng = space, judge, rng
        self._left: dict[str, Candidate] = {}
        self._taken: set[str] = set()
        self._refused: set[str] = set()
        self._begun = self.complete = False

    def take(self, digest: str) -> None:
        """Takes out a candidate that was proposed."""
        self._taken.add(digest)
        self._left.pop(digest, None)

    def among(self, parents: Sequence[Mapping[str, Any]]) -> list[Candidate]:
        """What there is to choose among now, `parents` being the choices of the best so far."""
        if not self._begun:
            self._begun = True
            self._begin()
        if not self.complete:
            self._refresh(parents)
        return list(self._left.values())

    def keep(self, digests: Sequence[str]) -> None:
        """Of a large space, holds the first `HELD` of these, the most promising first, and lets go of the others."""
        if not self.complete:
            self._left = {digest: self._left[digest] for digest in digests[:HELD] if digest in self._left}

    def _begin(self) -> None:
        found = list(itertools.islice(every_choice(self._space), MOST + 1))
        self.complete = len(found) <= MOST
        if not self.complete:
            found = []
            for params in itertools.islice(self._space.pure(), PURE):
                found.append((params, self._space.draw(_Inheriting([params], self._rng, 0.0))))
        for params, arch in found:
            self._bring_in(params, arch)

    def _refresh(self, parents: Sequence[Mapping[str, Any]]) -> None:
        """Half of what comes in is drawn uniformly, half has one or two of the parents, changed a little."""
        known = list(parents) or [candidate.params for candidate in self._left.values()]
        wanted = len(self._left) + FRESH
        for number in range(TRIES * FRESH):
            if len(self._left) >= wanted:
                return
            if number % 2 and known:
                pair = [self._rng.choice(known) for _ in range(self._rng.choice((1, 1, 2)))]
                draw = _Inheriting(pair, self._rng, self._rng.choice((0.05, 0.15, 0.3)))
            else:
                draw = _Inheriting([], self._rng, 1.0)
            arch = self._space.draw(draw)
            self._bring_in(draw.params, arch)

    def _bring_in(self, params: Mapping[str, Any], arch: ArchSpec) -> None:
        digest = arch.digest
        if digest in self._taken or digest in self._left or digest in self._refused:
            return
        verdict = self._judge(arch)
        if verdict.trainable:
            self._left[digest] = Candidate(arch=arch, params=dict(params), verdict=verdict)
        else:
            self._refused.add(digest)


class _Inheriting:
    """Choices of parents, each gene (what has one prefix, as ``layer3``) of one of them, or drawn anew."""

    def __init__(self, parents: Sequence[Mapping[str, Any]], rng: random.Random, rate: float) -> None:
        self._parents, self._rng, self._rate = parents, rng, rate
        self._random = RandomDraw(rng)
        self._of: dict[str, Mapping[str, Any]] = {}
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        chosen = self.params[name] = self._chosen(name, choices)
        return chosen

    def _chosen(self, name: str, choices: Sequence[Any]) -> Any:
        gene = name.partition(".")[0]
        if self._parents and gene not in self._of:
            self._of[gene] = self._rng.choice(self._parents)
        inherited = self._of.get(gene, {}).get(name)
        if inherited in choices and self._rng.random() >= self._rate:
            return inherited
        return self._random.suggest_categorical(name, choices)


class _Numbered:
    """Choices by their places, the first of those that are not given; remembers among how many each was."""

    def __init__(self, places: Sequence[int]) -> None:
        self._given = places
        self.places: list[tuple[int, int]] = []
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        at = len(self.places)
        place = self._given[at] if at < len(self._given) else 0
        self.places.append((place, len(choices)))
        chosen = self.params[name] = choices[place]
        return chosen


def every_choice(space: Space) -> Iterator[tuple[dict[str, Any], ArchSpec]]:
    """Every series of choices of a space with the candidate that it leads to, which may come again by others.
    As an odometer counts: the last choice that has a next one takes it, and those after it begin anew."""
    places: list[int] = []
    while True:
        draw = _Numbered(places)
        yield draw.params, space.draw(draw)
        last = max((at for at, (place, count) in enumerate(draw.places) if place + 1 < count), default=None)
        if last is None:
            return
        places = [*(place for place, _ in draw.places[:last]), draw.places[last][0] + 1]
