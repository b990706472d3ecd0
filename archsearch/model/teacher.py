"""Teachers: what a trained model lets a mixer that learns from it see, layer by layer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Teacher(Protocol):
    """What another model computed on the same tokens, as `Context.teacher` hands it to mixers; without gradients.

    Layers are counted from 0. A mixer that finds no teacher, or None of its layer, learns without: it must train.
    """

    def attention(self, layer: int) -> Tensor | None:
        """How much each token attended to itself and to those before, `[B, T, T]`: the mean over heads, each row sums
        to 1, nothing above the diagonal or across packed sequences. None where the layer attends to nothing."""
        ...

    def output(self, layer: int) -> Tensor | None:
        """What the token mixer of that layer gave, `[B, T, D]`."""
        ...
