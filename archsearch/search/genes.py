"""Genes: NSGA-II and NSGA-III whose children take each layer whole, mixer and options, from one parent.

Optuna's own crossover sees only parameters that all trials share: with conditional options a child would inherit its
parents' mixers and redraw every option.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

CROSSOVER = 0.9
"""Share of children with two parents."""


class LayerGenes(BaseSampler):
    """Draws children of the parent population layer by layer; goes before a genetic sampler among the bases.

    A gene is the parameters with one prefix (``layer3.mixer``, ``layer3.kda.key_dim``). Every gene comes from one of
    two parents, each the better of two at random; then every parameter is redrawn with probability 1 / their number
    (1/2 where there is but one).
    """

    genes_seed: int = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter that a parent has."""
        space: dict[str, BaseDistribution] = {}
        for parent in self._parents(study, trial):
            space.update(parent.distributions)
        return space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of a child; those left out are drawn at random."""
        if not search_space:
            return {}
        rng = random.Random(f"{self.genes_seed} {trial.number}")
        return child(self._parents(study, trial), study.directions, rng)

    def _parents(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        generation = self.get_trial_generation(study, trial)  # type: ignore[attr-defined]
        parents: list[FrozenTrial] = self.get_parent_population(study, generation)  # type: ignore[attr-defined]
        return parents

    @classmethod
    def generation_attributes(cls, generation: int) -> dict[str, Any]:
        """What a trial that is put back into a study must carry to count in its generation."""
        return {cls._get_generation_key(): generation}  # type: ignore[attr-defined]


class LayerNSGAII(LayerGenes, NSGAIISampler):
    """NSGA-II on layers."""


class LayerNSGAIII(LayerGenes, NSGAIIISampler):
    """NSGA-III on layers."""


def child(parents: Sequence[FrozenTrial], directions: Sequence[StudyDirection], rng: random.Random) -> dict[str, Any]:
    """The parameters that a child of `parents` inherits."""
    first = _genes(_winner(parents, directions, rng).params)
    second = _genes(_winner(parents, directions, rng).params) if rng.random() < CROSSOVER else first
    inherited: dict[str, Any] = {}
    for gene in sorted(first.keys() | second.keys()):
        one, other = (first, second) if rng.random() < 0.5 else (second, first)
        inherited |= one.get(gene) or other[gene]
    kept = 1.0 - 1.0 / max(2, len(inherited))
    return {name: value for name, value in inherited.items() if rng.random() < kept}


def _genes(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    genes: dict[str, dict[str, Any]] = {}
    for name, value in params.items():
        genes.setdefault(name.partition(".")[0], {})[name] = value
    return genes


def _winner(parents: Sequence[FrozenTrial], directions: Sequence[StudyDirection], rng: random.Random) -> FrozenTrial:
    one, other = rng.choice(parents), rng.choice(parents)
    return other if _beats(other, one, directions) else one


def _beats(one: FrozenTrial, other: FrozenTrial, directions: Sequence[StudyDirection]) -> bool:
    """Deb's rule: less violation first, then domination."""
    excess = [sum(max(0.0, value) for value in trial.constraints.values()) for trial in (one, other)]
    if excess[0] or excess[1]:
        return excess[0] < excess[1]
    signs = [-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    pairs = [(sign * a, sign * b) for sign, a, b in zip(signs, one.values, other.values, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
