"""A comparison in place of a search."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictStr

from archsearch.search.tables.table import Table

Match = Literal["tokens", "train_flops", "params", "state_read"]


class CompareTable(Table):
    """A comparison: every architecture of a space "listed" is held against one of them.

    Candidates are then not confirmed unless ``search.confirm_seeds`` says so, as ``recipe.seeds`` are trained of all.
    What ``[objectives]`` names of a task beside its primary metric is compared too.

    ``baseline``: the one that the others are held against; left out, the first of ``space.architectures``.
    ``match``: what the others are given as much of as the baseline has: "tokens" of training, which the recipe says;
    "train_flops": each is trained for the steps that take as many FLOPs; "params": each has the width of channel mixer
    that makes the parameters equal; "state_read": an option that sizes the state, as a window or a key width, those of
    mixers side by side too, is chosen so that one decoded token reads as many bytes of state at ``objectives.context``.
    What a pattern writes out stays.
    """

    baseline: StrictStr | None = None
    match: Match = "tokens"
