"""Parts of a batch: what goes through a model at once, and how much it weighs in the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from archsearch.recipe import Recipe
from archsearch.tasks import Batch
from archsearch.training.group import Group


@dataclass(frozen=True, kw_only=True)
class Part:
    """Neighbouring sequences of a batch: the `index`-th part of it, with ``rows``, its share of the sequences, and
    ``scored``, the positions that are scored in the whole batch."""

    index: int
    batch: Batch
    rows: float
    scored: int


def parts_of(batch: Batch, recipe: Recipe, group: Group) -> list[Part]:
    """The parts of `batch` that this process of the group takes, as even as they can be."""
    count, rows = recipe.accumulate, len(batch.tokens)
    scored = int(batch.scored.sum())
    found = []
    for index in group.share(count):
        start, end = rows * index // count, rows * (index + 1) // count
        part = batch.take(slice(start, end))
        found.append(Part(index=index, batch=part, rows=(end - start) / rows, scored=scored))
    return found


def draw_for(part: Part, recipe: Recipe, *, seed: int, step: int) -> None:
    """Where a batch is split, random numbers follow from seed, step and part alone, whoever computes the part."""
    if recipe.accumulate > 1:
        torch.manual_seed(int(np.random.SeedSequence([seed, step, part.index]).generate_state(1, np.uint64)[0]))
