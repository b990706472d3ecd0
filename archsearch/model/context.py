"""Context: what a mixer is told of a call beside its input; nothing is guessed from a shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Context:
    """One forward pass, seen by every layer of it.

    ``positions`` `[B, T]` int64 overrides the positions that follow from the state's lengths or ``cu_seqlens``.
    ``cu_seqlens`` `[N + 1]` int64: the batch is one row of N sequences laid end to end, the bounds of each.
    ``want_state``: return a state although none was given. ``held``: tokens that the longest sequence of the given
    states has, where the caller knows them, so that no mixer need ask. ``progress``: share of the training done, 0 to
    1. ``shared``: values that layers hand to later layers. ``teacher``: outputs of a model to distil from, or None.
    """

    positions: Tensor | None = None
    cu_seqlens: Tensor | None = None
    want_state: bool = False
    held: int | None = None
    progress: float = 0.0
    shared: dict[str, Any] = field(default_factory=dict)
    teacher: Any = None
    losses: dict[str, Tensor] = field(default_factory=dict)

    def add_loss(self, name: str, value: Tensor) -> None:
        """Add a scalar to the training loss (load balance, distillation), summed over layers by name.

        Raises `TypeError` for what is no tensor of floating point, `ValueError` for one that is no scalar.
        """
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f'add_loss("{name}") takes a scalar tensor of floating point, not {_told(value)}')
        if value.ndim:
            raise ValueError(f'add_loss("{name}") takes a scalar tensor, not one of shape {list(value.shape)}: sum it')
        self.losses[name] = self.losses[name] + value if name in self.losses else value

    def positions_of(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Positions `[B, T]` int64 of the tokens of `x` `[B, T, ...]`, which follow `lengths` `[B]` earlier ones."""
        if self.positions is not None:
            return self.positions
        batch, count = x.shape[:2]
        steps = torch.arange(count, device=x.device)
        if self.cu_seqlens is not None:
            starts = self.cu_seqlens.to(x.device)
            owner = torch.searchsorted(starts[1:], steps, right=True)
            return (steps - starts[owner]).expand(batch, count)
        if lengths is None:
            return steps.expand(batch, count)
        return lengths[:, None] + steps


def _told(value: object) -> str:
    return f"one of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
