"""Teachers: what a trained model lets a mixer that learns from it see, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Teacher(Protocol):
    """What another model computed on the same tokens, as `Context.teacher` hands it to mixers; without gradients.

    Layers are counted from 0. A mixer that finds no teacher, or None of its layer, learns without: it must train.
    """

    @property
    def dense(self) -> bool:
        """Whether the first of two stages is on, in which a mixer that chooses attends to all in training, while its
        choice learns."""
        ...

    def attention(self, layer: int) -> Tensor | None:
        """How much each token attended to itself and to those before, `[B, T, T]`: the mean over heads, each row sums
        to 1, nothing above the diagonal or across packed sequences. None where the layer attends to nothing."""
        ...

    def output(self, layer: int) -> Tensor | None:
        """What the token mixer of that layer gave, `[B, T, D]`."""
        ...


@dataclass(frozen=True, kw_only=True)
class OwnTeacher:
    """A `Teacher` that says only which stage is on: each layer learns from its own dense attention."""

    dense: bool

    def attention(self, layer: int) -> Tensor | None:
        """None, whatever the layer."""
        return None

    def output(self, layer: int) -> Tensor | None:
        """None, whatever the layer."""
        return None
