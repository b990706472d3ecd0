"""state_tracking: the word problem of a permutation group: what all the moves so far come to, parity among them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import permutations
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, Task, TaskOptions, share_by, times
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.sampling import Ints
from archsearch.tasks.splits import Split

Group = Literal["s2", "s3", "s5", "a5"]


class StateTrackingOptions(TaskOptions):
    """The group, and the length of a sequence.

    ``group``: "s2", all permutations of two things, whose word problem is parity; "s3", "s5"; "a5", the even
    permutations of five.
    ``seq_len``: tokens of a training sequence; evaluation goes on to twice and four times as many.
    ``moved``: the most things that one token moves: 2 leaves the swaps of two, 3 those and the 3-cycles; the state is
    any element of the group all the same.
    """

    group: Group = "s2"
    seq_len: int = Field(default=32, ge=4, le=MAX_LENGTH)
    moved: int = Field(default=5, ge=2, le=5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.group == "a5" and self.moved == 2:
            raise ValueError("moved = 2 leaves group = a5 the identity alone, as a swap is odd: set moved = 3 or more")
        return self


class StateTracking(Task):
    """Each token is a permutation, drawn evenly from those of the group that are given; at every position the model
    must predict the product of all tokens so far, the later on the left.

    Tokens and targets are elements, 0 the identity. The longer sets score the positions beyond the trained length
    alone, so that who has learnt no more than the trained length has chance there. Merrill, Petty and Sabharwal 2024,
    arXiv 2404.08819, section 5: S5 and A5 are complete for NC1, parity and S3 are not. ``moved`` after Grazzi et al.
    2024, arXiv 2411.12537, section 5.2.
    """

    name: ClassVar[str] = "state_tracking"
    summary: ClassVar[str] = "the product of all moves so far in a permutation group: parity, S3, A5, S5"
    options_type: ClassVar[type[TaskOptions]] = StateTrackingOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "parity": {},
        "s3": {"group": "s3"},
        "a5": {"group": "a5", "seq_len": 16},
        "s5": {"group": "s5", "seq_len": 16},
        "s5_swaps": {"group": "s5", "seq_len": 16, "moved": 2},
    }
    default_setting: ClassVar[str] = "parity"
    recall: ClassVar[bool] = False
    evaluation_labels: ClassVar[tuple[str, ...]] = ("", "2x", "4x")

    options: StateTrackingOptions

    @property
    def vocab_size(self) -> int:
        return len(elements(self.options.group))

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size = self.options
        given = np.flatnonzero(moves(size.group) <= size.moved)
        tokens = given[rng.integers(len(given), size=(count, size.seq_len * times(label)))]
        targets = running_products(tokens, size.group)
        if label:
            targets[:, : size.seq_len] = IGNORE
        return Batch(tokens=tokens, targets=targets)

    def breakdown(self, batch: Batch, predictions: NDArray[np.int64]) -> dict[str, float]:
        """``accuracy[quarter 1]`` to ``[quarter 4]`` of a sequence; in the longer sets of those that are scored."""
        length = batch.tokens.shape[1]
        quarter = np.broadcast_to(np.arange(length) * 4 // length, batch.tokens.shape)
        return share_by(batch, predictions, {f"quarter {number + 1}": quarter == number for number in range(4)})


@cache
def elements(group: Group) -> Ints:
    """The permutations of a group `[n, points]`, the identity first: row i sends point p to ``elements[i, p]``."""
    found = np.array(list(permutations(range(int(group[1])))), dtype=np.int64)
    return found if group.startswith("s") else found[_even(found)]


@cache
def moves(group: Group) -> Ints:
    """How many points each element moves `[n]`."""
    found = elements(group)
    moved: Ints = (found != np.arange(found.shape[1])).sum(1)
    return moved


@cache
def products(group: Group) -> Ints:
    """The index of ``elements[i]`` after ``elements[j]`` `[n, n]`."""
    found = elements(group)
    digits = found.shape[1] ** np.arange(found.shape[1])[::-1]
    codes = found @ digits  # ascending, as permutations come in the order of their digits
    table: Ints = np.searchsorted(codes, found[:, found] @ digits)
    return table


def running_products(tokens: Ints, group: Group) -> Ints:
    """The product of each row's tokens up to each position `[B, T]`, the later on the left.

    By doubling: after a round each position has the product of twice as many tokens that end there.
    """
    table, found, reach = products(group), tokens.copy(), 1
    while reach < tokens.shape[1]:
        found[:, reach:] = table[found[:, reach:], found[:, :-reach]]
        reach *= 2
    return found


def _even(found: Ints) -> NDArray[np.bool_]:
    """Which permutations have an even number of pairs out of order."""
    above = found[:, :, None] > found[:, None, :]
    even: NDArray[np.bool_] = np.triu(above, 1).sum((1, 2)) % 2 == 0
    return even
