"""Whether the sparsity of an architecture can act at the length that it is measured at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from archsearch.arch import ArchSpec
from archsearch.composition import placed
from archsearch.layer import Resolver
from archsearch.notation import format_layer


@dataclass(frozen=True, kw_only=True)
class Unexercised:
    """A layer, as notation writes it, whose sparsity drops nothing on the ``seq_len`` tokens of a task.

    It sees all of up to ``dense_up_to`` tokens: measured there, a window of 64 on 64 tokens would look like full
    attention at the cost of none. ``task`` is the task's label, "" where an old row of a database names none; where
    such a row cannot be read, ``layer`` is all that it says and ``seq_len`` is 0.
    """

    layer: str
    task: str
    seq_len: int
    dense_up_to: int

    def __str__(self) -> str:
        return f"{self.sees}, and {self.length}" if self.seq_len else self.sees

    @property
    def sees(self) -> str:
        """What the layer sees, in words."""
        return f"{self.layer} sees all of up to {self.dense_up_to} tokens" if self.seq_len else self.layer

    @property
    def length(self) -> str:
        """How long the task is, in words."""
        return f"{self.task or 'the task'} has {self.seq_len}"

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads `to_json`'s data."""
        return cls(**data)


def unexercised_layers(arch: ArchSpec, task: str, seq_len: int, resolver: Resolver) -> tuple[Unexercised, ...]:
    """The distinct layers of `arch` that drop nothing on the `seq_len` tokens of `task`, though they would on more."""
    found: dict[tuple[str, int], Unexercised] = {}
    for index, layer in enumerate(arch.layers):
        dense = dense_up_to(arch, index, resolver)
        if dense >= seq_len + arch.model.meta_tokens:
            text = format_layer(layer, resolver)
            found[text, dense] = Unexercised(layer=text, task=task, seq_len=seq_len, dense_up_to=dense)
    return tuple(found.values())


def dense_up_to(arch: ArchSpec, index: int, resolver: Resolver) -> int:
    """The longest sequence on which the sparsity of layer `index`, or of one of the mixers that it is made of, drops
    nothing; 0 where it always acts or there is none."""
    return max(part.figures(resolver).dense_up_to() for part in placed(arch, index, resolver))
