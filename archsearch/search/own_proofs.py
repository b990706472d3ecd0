"""Own proofs: a worker proves the rows of kernels that its trial meets before that begins, outside of its time."""

from __future__ import annotations

from archsearch.arch import ArchSpec
from archsearch.kernels import forms
from archsearch.kernels.prove import Row
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.training.group import Group
from archsearch.training.unproven import unproven_rows

MARGIN = 30.0
"""Seconds that a worker may take for a look at its models beside the proof itself."""


class OwnProofs:
    """The proofs before one trial, of this process of a group whose processes call `prove` as often as each other."""

    def __init__(self, arch: ArchSpec, recipe: Recipe, registry: Registry, group: Group) -> None:
        self._looked_at = arch, recipe, registry
        self._group = group
        self._known: set[str] = set()
        self._rows: list[Row] | None = None

    def prove(self) -> float:
        """Proves the row that the call before has announced, if it is this process's; then the seconds that the next
        call may take, 0 where no process has any row left."""
        if self._rows:
            forms.prove_row(self._rows.pop(0))
        if not self._rows:  # one that is proven may have let the models meet others
            met = unproven_rows(*self._looked_at)
            self._rows = [row for row in met if row.label not in self._known]
            self._known |= {row.label for row in self._rows}
        waiting = -self._group.least(-len(self._rows))
        return forms.prover.most_seconds + MARGIN if waiting else 0.0
