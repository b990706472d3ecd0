"""Records: what the store hands out, as frozen plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from archsearch.exercise import Unexercised
from archsearch.storage.driver import Driver

SearchState = Literal["running", "complete", "infeasible", "cancelled", "interrupted", "failed"]
TrialState = Literal[
    "queued",
    "running",
    "complete",
    "pruned",
    "infeasible",
    "diverged",
    "failed",
    "preempted",
    "cancelled",
    "superseded",
]
"""A pruned trial was stopped before its training had ended, as others dominated it: what it has measured is kept, and
it stands on no front. A superseded trial was measured with source that has changed since: it stays to be read, and
counts no more."""

TrialKind = Literal["search", "reference", "confirm", "added"]
"""An added trial is a candidate that somebody brought to the search; it counts beyond the trials that are asked for."""

Split = Literal["validation", "test", "cost", "progress"]

SEARCH_STATES: tuple[str, ...] = get_args(SearchState)
TRIAL_STATES: tuple[str, ...] = get_args(TrialState)
TRIAL_KINDS: tuple[str, ...] = get_args(TrialKind)
SPLITS: tuple[str, ...] = get_args(Split)
OPEN_STATES = ("queued", "running")
STALE_AFTER = timedelta(seconds=60)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a moment that must be there and is not."""


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """One search; the moments are UTC-aware. ``objectives`` hold name, direction and unit.

    ``driver`` is the process that drives it or drove it last, where that is known; ``beats`` counts its signs of life,
    and ``fence`` the drivers that it had. ``read_at`` is when it was read, by the clock that the heartbeat is of: the
    database's. ``owner``, ``tags``, ``note`` and ``archived_at`` are for the people who
    share the database.
    """

    id: int
    name: str
    state: str
    reason: str
    spec: Mapping[str, Any]
    objectives: tuple[Mapping[str, Any], ...]
    created_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    driver: Driver | None = None
    beats: int = 0
    fence: int = 0
    owner: str | None = None
    tags: tuple[str, ...] = ()
    note: str = ""
    archived_at: datetime | None = None
    read_at: datetime = field(default=EPOCH, compare=False)

    @property
    def age(self) -> float:
        """Seconds from the heartbeat to when this was read; 0 where a clock that was set back puts it later."""
        return max(0.0, (self.read_at - self.heartbeat_at).total_seconds())

    @property
    def silent(self) -> bool:
        """Whether the heartbeat lies `STALE_AFTER` away; one that lies ahead is of before the clock was set back."""
        return abs(self.read_at - self.heartbeat_at) > STALE_AFTER

    def state_now(self) -> str:
        """The state when this was read: a running search is "interrupted" when its driver is dead.

        Where that cannot be told from here, it is when the driver was `silent`.
        """
        if self.state != "running":
            return self.state
        alive = None if self.driver is None else self.driver.alive()
        return "running" if alive or (alive is None and not self.silent) else "interrupted"


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One number of a trial: `task` and `seed` where it belongs to one, `step` where it is a point of a curve.

    ``value`` is None where the number was not finite.
    """

    name: str
    split: str
    value: float | None
    task: str | None = None
    seed: int | None = None
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class MeasurementRecord:
    """One measurement of a trial: `payload` is `Measurement.to_json()` with null for numbers that were not finite.

    ``task`` is the label under which the search calls its task; ``reused_from`` the trial that it was trained in, the
    measurement's own where that one is gone.
    """

    key: str
    task: str
    seed: int
    status: str
    payload: Mapping[str, Any]
    reused_from: int | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewTrial:
    """A trial that is to be stored.

    ``costs`` maps terms such as "state_bytes@32768" to values, ``violations`` the terms that exceed the budget to the
    excess; ``parent`` is the trial that a "confirm" trial confirms, or to whose candidate a "search" trial gives a
    second seed, ``unexercised`` holds `Unexercised.to_json()` of each layer and task.
    """

    kind: str
    state: str
    arch: Mapping[str, Any]
    digest: str
    pattern: str
    params: Mapping[str, Any]
    seeds: Sequence[int]
    costs: Mapping[str, float]
    violations: Mapping[str, float]
    reason: str = ""
    parent: int | None = None
    unexercised: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class NewProposal:
    """A candidate that somebody adds to a search: `ArchSpec.to_json()`, its digest and its pattern."""

    digest: str
    arch: Mapping[str, Any]
    pattern: str


@dataclass(frozen=True, kw_only=True)
class ProposalRecord:
    """A candidate that ``owner`` added to a search; ``trial`` is the id of the trial that it came to, None before."""

    id: int
    search_id: int
    digest: str
    arch: Mapping[str, Any]
    pattern: str
    owner: str | None
    created_at: datetime
    trial: int | None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial; ``number`` counts from 0 within its search, ``id`` is its own in the whole database.

    ``costs`` maps terms such as "state_bytes@32768" to values, ``violations`` terms of the budget to the excess.
    ``attempts`` counts the workers that were lost under it, ``placement`` says where it ran last.
    ``measurements`` are filled in by `Store.trial` alone, and so is ``unfinished``: the curve of the run in which a
    pruned trial was stopped, whose steps count over all learning rates.
    """

    id: int
    search_id: int
    number: int
    kind: str
    state: str
    reason: str
    arch: Mapping[str, Any]
    digest: str
    pattern: str
    params: Mapping[str, Any]
    seeds: tuple[int, ...]
    costs: Mapping[str, float]
    violations: Mapping[str, float]
    unexercised: tuple[Unexercised, ...]
    parent: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int = 0
    placement: Mapping[str, Any] | None = None
    measurements: tuple[MeasurementRecord, ...] = field(default=())
    unfinished: tuple[MetricValue, ...] = field(default=())

    @property
    def feasible(self) -> bool:
        """Whether the budget is met."""
        return not self.violations

    @property
    def exercised(self) -> bool:
        """Whether every layer's sparsity acted at the length that was trained and tested."""
        return not self.unexercised

    def origin(self, measured: MeasurementRecord) -> str:
        """Where one of its measurements was taken from, in words; "" where it was trained for this trial. A trial that
        is gone, removed or left in another database, is told by the trial's own id."""
        if measured.reused_from is None:
            return ""
        return (
            "taken from a trial that is gone"
            if measured.reused_from == self.id
            else f"taken from trial {measured.reused_from}"
        )
