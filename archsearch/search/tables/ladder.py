"""Tables of a spec that make a ladder of a search: its rungs, its limits, and where a rung came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, StrictStr, field_validator, model_validator

from archsearch.costs import parse_context
from archsearch.errors import SpecError
from archsearch.layer import MAX_FFN_DIM
from archsearch.notation import MAX_LAYERS
from archsearch.numbers import Number, Whole
from archsearch.recipe import MAX_STEPS
from archsearch.search.tables.objectives import TaskTable
from archsearch.search.tables.table import MAX_CHOICES, Table

MAX_RUNGS = 20
MAX_KEPT = 1000
_MAX_SIZE = 2**20

SIZES = (
    "d_model",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "ffn_dim",
    "n_experts",
    "experts_per_token",
    "expert_dim",
)
"""Keys of a rung that are keys of ``[model]``."""

RECIPE = ("steps", "tokens", "batch_size", "learning_rates", "seeds")
"""Keys of a rung that are keys of ``[recipe]``."""

_Size = Annotated[Whole, Field(ge=1, le=_MAX_SIZE)]


class RungTable(Table):
    """One size up: what the survivors of the rung below are trained with. The search itself is the first rung.

    What a rung leaves out is as the rung below has it, and for the first of them as the search has it.

    ``keep``: candidates of the rung below that are carried up: those that nothing dominates, then the next ranks; of a
    rank that is too many, the least crowded.
    ``at_most``: where others cannot be told from those by the noise of seeds they are carried up too, up to so many in
    all; left out, half as many again as ``keep``.
    ``d_model``: width of the residual stream.
    ``n_layers``: layers, at least those of the rung below; patterns repeat or are stretched.
    ``n_heads``: query heads.
    ``n_kv_heads``: key and value heads.
    ``head_dim``: width of a head.
    ``ffn_dim``: hidden width of ``swiglu``.
    ``n_experts``: experts of ``moe``.
    ``experts_per_token``: how many of them a token is sent to.
    ``expert_dim``: hidden width of an expert.
    ``steps``: optimiser steps of a run.
    ``tokens``: tokens of a run, in place of ``steps``.
    ``batch_size``: sequences of a step.
    ``learning_rates``: peak learning rates, all of which are tried anew: the best one moves with the width.
    ``seeds``: seeds that each survivor and reference is trained with.
    ``confirm_seeds``: fresh seeds that measure the front of the rung again; left out, none, as ``seeds`` are trained of
    all.
    ``context``: tokens at which costs are taken; text such as "128Ki" is read too.
    ``tasks``: tables ``[[rung.tasks]]`` in place of ``[[tasks]]``, of the same tasks: as with longer sequences.
    ``budget``: upper limits on costs at this size, as ``[budget]``; left out, none: the survivors have met one already,
    and a limit in bytes of a smaller model says nothing of a larger one.
    """

    keep: Whole = Field(default=8, ge=1, le=MAX_KEPT)
    at_most: Whole | None = Field(default=None, ge=1, le=2 * MAX_KEPT)
    d_model: _Size | None = None
    n_layers: Annotated[Whole, Field(ge=1, le=MAX_LAYERS)] | None = None
    n_heads: _Size | None = None
    n_kv_heads: _Size | None = None
    head_dim: _Size | None = None
    ffn_dim: Annotated[Whole, Field(ge=1, le=MAX_FFN_DIM)] | None = None
    n_experts: _Size | None = None
    experts_per_token: _Size | None = None
    expert_dim: Annotated[Whole, Field(ge=1, le=MAX_FFN_DIM)] | None = None
    steps: Annotated[Whole, Field(ge=1, le=MAX_STEPS)] | None = None
    tokens: Annotated[Whole, Field(ge=1, le=10**15)] | None = None
    batch_size: _Size | None = None
    learning_rates: tuple[float, ...] | None = Field(default=None, min_length=1, max_length=1000)
    seeds: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    confirm_seeds: Whole = Field(default=0, ge=0, le=1000)
    context: Annotated[Whole, Field(ge=1, le=2**50)] | None = None
    tasks: tuple[TaskTable, ...] = Field(default=(), max_length=MAX_CHOICES)
    budget: Mapping[str, Any] = {}

    @field_validator("context", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        return parse_context(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps is not None and self.tokens is not None:
            raise SpecError("a [[rung]] gives steps and tokens: drop one")
        if self.at_most is not None and self.at_most < self.keep:
            raise SpecError(f"a [[rung]] has at_most = {self.at_most} and keep = {self.keep}: raise at_most")
        return self

    @property
    def most(self) -> int:
        """How many are carried up at most."""
        return self.at_most or self.keep + -(-self.keep // 2)

    @property
    def sizes(self) -> dict[str, int]:
        """The keys of the backbone that it gives."""
        return {key: value for key in SIZES if (value := getattr(self, key)) is not None}

    @property
    def trained(self) -> dict[str, Any]:
        """The keys of the recipe that it gives; one that gives steps takes tokens away."""
        given = {key: value for key in RECIPE if (value := getattr(self, key)) is not None}
        return {**given, "tokens": None} if "steps" in given else given


class LadderTable(Table):
    """What all rungs of a ladder together may cost, before somebody is asked.

    ``max_flops``: training FLOPs of all rungs; a ladder that may take more is begun after a question, or with --yes.
    ``max_hours``: hours of all rungs, judged by the FLOPs a second of trainings that the database holds; where it holds
    none the question is asked.
    """

    max_flops: Number | None = Field(default=None, gt=0.0)
    max_hours: Number | None = Field(default=None, gt=0.0)


class KeptTable(Table):
    """One architecture that was carried up.

    ``pattern``: how it is written on this rung.
    ``digest``: that of the architecture on this rung.
    ``below``: its digest on the rung below.
    ``unit``: layers of the unit that repeats; 0 where the pattern was stretched.
    ``drawn``: what its backbone drew of ``[space.backbone]`` in the search that is the first rung, by key.
    ``why``: "front" where nothing dominated it, "rank" for a later rank, "untold" where noise alone kept it, and
    "reference".
    """

    pattern: StrictStr
    digest: StrictStr
    below: StrictStr
    unit: Whole = Field(default=0, ge=0, le=MAX_LAYERS)
    drawn: Mapping[str, Any] = {}
    why: StrictStr = "front"


class ClimbedTable(Table):
    """Where the search of a rung comes from. The ladder writes it; a spec of your own has none.

    ``ladder``: the search that is the first rung.
    ``rung``: which rung this is; the search is 1.
    ``below``: the search of the rung below.
    ``kept``: tables ``[[climbed.kept]]``, one for each architecture that was carried up.
    ``left``: patterns of the rung below that would have been carried up too, each with why it was not.
    ``without_noise``: measured objectives of which no candidate below had two seeds that differ, so that nothing was
    told apart.
    """

    ladder: StrictStr
    rung: Whole = Field(ge=2, le=MAX_RUNGS + 1)
    below: StrictStr
    kept: tuple[KeptTable, ...] = ()
    left: Mapping[str, StrictStr] = {}
    without_noise: tuple[StrictStr, ...] = ()
