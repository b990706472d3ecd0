"""How many candidates are trained, who proposes them, and when one is stopped early."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictStr, field_validator, model_validator

from archsearch.errors import SpecError
from archsearch.numbers import Number, Whole
from archsearch.search.tables.resources import MAX_WORKERS
from archsearch.search.tables.table import MAX_CHOICES, Table

MAX_TRIALS = 1_000_000
MAX_SEEDS = 1_000
MAX_DRAWS = 1_000_000_000
MAX_RETRIES = 100

SamplerName = Literal["ehvi", "nsga2", "nsga3", "tpe", "gp", "random"]


class EarlyStopTable(Table):
    """When a candidate that is beyond hope of the front is stopped before its training has ended, and is then `pruned`.

    ``early_stop = true`` in ``[search]`` takes these numbers as they are; left out, or false, all are trained to the
    end.

    ``others``: how many trials must dominate it: no worse in any cost, and better in every measured objective, on the
    tasks and seeds that it was trained on so far.
    ``noise``: by how many standard errors they must be better, of the noise between seeds that the search has seen.
    ``margin``: by what share of the range of values they must be better while too few seeds were repeated to tell.
    ``grace``: the share of a training's steps before which nothing is concluded from it.
    ``confirmations``: whether the confirmations of the front may be stopped too.
    """

    others: Whole = Field(default=3, ge=1, le=MAX_TRIALS)
    noise: Number = Field(default=1.0, ge=0.0, le=100.0)
    margin: Number = Field(default=0.1, ge=0.0, le=1.0)
    grace: Number = Field(default=0.25, ge=0.0, le=1.0)
    confirmations: bool = False


class SearchTable(Table):
    """How many candidates are trained, who proposes them, and what is measured around them.

    ``trials``: candidates that are trained here; infeasible and repeated ones come on top.
    ``sampler``: who proposes candidates: "ehvi", which knows costs, models each metric over the layers and takes what
    is expected to add most to the hypervolume, or one of Optuna's.
    ``population``: candidates of a generation (nsga2, nsga3); left out, a quarter of ``trials``, at least 4 and at most
    50, so that a small search has generations at all.
    ``startup_trials``: candidates before the sampler learns, random ones (tpe, gp) or the cheapest and such as differ
    most (ehvi); left out, counted as ``population`` is, and a twelfth of ``trials`` for ehvi, from 4 to 12.
    ``references``: whether the mixer `full` in every layer and each pure mixer of the space are trained beside the
    candidates; a list of patterns names others, where a single layer is repeated.
    ``confirm_seeds``: fresh seeds that measure again what is on the front, on the test split; 0 for none.
    ``second_seeds``: the share of ``trials`` that train a point of the front so far with one more seed, each candidate
    once at most, in place of a new candidate: a front by means over two seeds is less of luck, and the sampler learns
    by the means too.
    ``concurrency``: trials at a time.
    ``max_draws``: draws in a row that gave nothing to train, after which the search ends early and says so.
    ``retries``: how often a trial is tried again whose worker was lost, ended by itself or ran out of memory; one that
    fails by an error of its own is not.
    ``early_stop``: whether candidates that others dominate beyond noise are stopped: true, or a table of its own,
    ``[search.early_stop]``.
    """

    trials: Whole = Field(default=32, ge=1, le=MAX_TRIALS)
    sampler: SamplerName = "ehvi"
    population: Whole | None = Field(default=None, ge=2, le=MAX_TRIALS)
    startup_trials: Whole | None = Field(default=None, ge=1, le=MAX_TRIALS)
    references: bool | Annotated[tuple[StrictStr, ...], Field(max_length=MAX_CHOICES)] = True
    confirm_seeds: Whole = Field(default=1, ge=0, le=MAX_SEEDS)
    second_seeds: Number = Field(default=0.0, ge=0.0, le=0.5)
    concurrency: Whole = Field(default=1, ge=1, le=MAX_WORKERS)
    max_draws: Whole = Field(default=2000, ge=1, le=MAX_DRAWS)
    retries: Whole = Field(default=1, ge=0, le=MAX_RETRIES)
    early_stop: EarlyStopTable | None = None

    @field_validator("early_stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        """`true` stands for the table's own numbers, `false` for none."""
        return ({} if value else None) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        evolves = self.sampler in ("nsga2", "nsga3")
        if self.population is not None and not evolves:
            raise SpecError(f'search.population goes with the samplers nsga2 and nsga3, not "{self.sampler}": drop it')
        if self.startup_trials is not None and self.sampler not in ("ehvi", "tpe", "gp"):
            raise SpecError(
                f'search.startup_trials goes with the samplers ehvi, tpe and gp, not "{self.sampler}": drop it'
            )
        return self

    @property
    def first_random(self) -> int:
        """How many candidates are drawn at random before the sampler learns: its population or start-up."""
        given = self.population or self.startup_trials
        if self.sampler == "ehvi":
            return given or min(12, max(4, self.trials // 12))
        return given or min(50, max(4, self.trials // 4))
