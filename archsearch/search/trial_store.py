"""What a campaign asks of a store: the few methods of `Store` through which trials are written and found again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from archsearch.storage import MetricValue, NewTrial, ProposalRecord, TrialRecord


class TrialStore(Protocol):
    """The trials of a search; `Store` says what each method does, and raises `StorageError` for."""

    def trials(self, search_id: int) -> Sequence[TrialRecord]:
        """The trials of a search by number, without their measurements."""
        ...

    def trial(self, trial_id: int) -> TrialRecord:
        """A trial with its measurements."""
        ...

    def add_trial(self, search_id: int, trial: NewTrial) -> int:
        """Stores a trial, numbered next in its search; returns its id."""
        ...

    def set_trial_state(
        self, trial_id: int, state: str, reason: str = "", *, metrics: Iterable[MetricValue] = ()
    ) -> None:
        """Sets the state and its reason."""
        ...

    def find_measurement(self, key: str) -> tuple[int, dict[str, Any]] | None:
        """The trial that first gave a measurement of `key`, and its payload."""
        ...

    def add_measurement(
        self,
        trial_id: int,
        measurement: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, float | None]],
        *,
        task: str | None = None,
        reused_from: int | None = None,
    ) -> int:
        """Stores `Measurement.to_json()` with its metrics; returns its id."""
        ...

    def set_placement(self, trial_id: int, placement: Mapping[str, Any]) -> None:
        """Notes where a trial runs."""
        ...

    def lose_worker(self, trial_id: int, reason: str) -> None:
        """Sets a trial whose worker was lost to "preempted"."""
        ...

    def proposals(self, search_id: int, *, waiting: bool = False) -> Sequence[ProposalRecord]:
        """What was added to a search."""
        ...

    def link_proposal(self, proposal_id: int, trial_id: int) -> None:
        """Says which trial a proposal came to."""
        ...

    def add_parts(self, search_id: int, parts: Iterable[tuple[str, str, str]]) -> None:
        """Adds parts of the source that a search has come to run."""
        ...
