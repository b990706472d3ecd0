"""Checks: what is asked of a row of a kernel table, case by case, and where it is tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from archsearch.kernels import Key, Table
from archsearch.proving.compare import Verdict

Case: TypeAlias = Mapping[str, Any]

_MANY_TOKENS = 65_537


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A row that is put to the proof: on a device, with operands in a dtype, with the table's own configurations or
    with those of the `candidate` of that number, interpreted with those for float32 where it is `exact`. In a `whole`
    one sizes are those that a card is used for, else such that an interpreted kernel, or a first use, is done soon."""

    key: Key
    device: torch.device
    dtype: torch.dtype
    whole: bool = False
    candidate: int | None = None
    exact: bool = False

    @property
    def dim(self) -> int:
        """The head dim of the row, or what its table has in place of one."""
        return self.key[1]

    def many(self, whole: int, few: int) -> int:
        """`whole` in a whole attempt, else `few`."""
        return whole if self.whole else few

    @property
    def long(self) -> int:
        """More tokens than 16 bits count. Where sums over so many are float32 they lose more than its limit, and
        indices are the same in each dtype: there, and where the attempt is not whole, just a hundred."""
        return _MANY_TOKENS if self.whole and self.dtype != torch.float32 else 100

    @property
    def crowd(self) -> tuple[int, int]:
        """Sequences of a packed batch, and the tokens of all."""
        return (64, 4000) if self.whole else (9, 45)

    def held(self, tensors: Mapping[str, Tensor], low: Iterable[str]) -> dict[str, Tensor]:
        """The tensors on the device: those named in `low` in the dtype, other floating ones in float32."""
        low = set(low)
        return {name: self._held(x, self.dtype if name in low else torch.float32) for name, x in tensors.items()}

    def _held(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.detach().to(self.device, dtype if x.is_floating_point() else x.dtype)

    def uneven(self, seed: int = 0) -> Tensor:
        """Bounds `[N + 1]` of `crowd`'s packed sequences, of which the second is empty."""
        count, total = self.crowd
        draw = torch.Generator().manual_seed(seed)
        cuts = torch.randperm(total - 1, generator=draw)[: count - 2].sort().values + 1
        bounds = torch.cat([torch.zeros(1, dtype=torch.int64), cuts[:1], cuts, torch.tensor([total])])
        return bounds.to(self.device)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that is asked of every row of a table: ``run(attempt, **case)`` gives a verdict on each of the `cases`.

    ``first`` are the cases that a first use tries, the first case unless others are named; of those the first is tried
    interpreted, in the smallest row, by the default tests. A check runs with the row forced upon its table, and with
    memory that holds NaN until it is written.
    """

    table: Table
    name: str
    run: Callable[..., Verdict]
    cases: Sequence[Case] = ({},)
    first: Sequence[Case] = field(default=())

    @property
    def samples(self) -> Sequence[Case]:
        """The cases of a first use."""
        return self.first or self.cases[:1]

    def label(self, case: Case) -> str:
        """The check and the case, for people."""
        told = " ".join(f"{name}={_told(value)}" for name, value in case.items())
        return f"{self.name} {told}".strip()

    def try_case(self, attempt: Attempt, case: Case) -> Verdict:
        """The verdict on one case of the row."""
        with self.table.forced(attempt.key, exact=attempt.exact), self.table.using(attempt.key, attempt.candidate):
            return self.run(attempt, **case)


def grid(**axes: Iterable[Any]) -> list[Case]:
    """Every combination of the values of some axes; an axis ``a__b`` holds pairs for ``a`` and ``b``."""
    found: list[Case] = []
    for values in itertools.product(*axes.values()):
        case: dict[str, Any] = {}
        for names, value in zip(axes, values, strict=True):
            parts = names.split("__")
            case |= dict(zip(parts, value if len(parts) > 1 else (value,), strict=True))
        found.append(case)
    return found


def _told(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
