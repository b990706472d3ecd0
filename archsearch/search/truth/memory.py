"""A store of one search in memory: what a campaign asks of a database, without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from archsearch.exercise import Unexercised
from archsearch.storage import MetricValue, NewTrial, ProposalRecord, TrialRecord
from archsearch.storage.records import MeasurementRecord

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
"""The moment of every record: nothing of a replay depends on time."""


class MemoryStore:
    """The trials of one search, which nobody else writes to; ids are numbers from 1."""

    def __init__(self) -> None:
        self._trials: list[TrialRecord] = []
        self._first: dict[str, tuple[int, dict[str, Any]]] = {}

    def trials(self, search_id: int) -> list[TrialRecord]:
        return list(self._trials)

    def trial(self, trial_id: int) -> TrialRecord:
        return self._trials[trial_id - 1]

    def add_trial(self, search_id: int, trial: NewTrial) -> int:
        number = len(self._trials)
        record = TrialRecord(
            id=number + 1,
            search_id=search_id,
            number=number,
            kind=trial.kind,
            state=trial.state,
            reason=trial.reason,
            arch=trial.arch,
            digest=trial.digest,
            pattern=trial.pattern,
            params=trial.params,
            seeds=tuple(trial.seeds),
            costs=trial.costs,
            violations=trial.violations,
            unexercised=tuple(map(Unexercised.from_json, trial.unexercised)),
            parent=trial.parent,
            created_at=_NOW,
            started_at=None,
            finished_at=None,
        )
        self._trials.append(record)
        return record.id

    def set_trial_state(
        self, trial_id: int, state: str, reason: str = "", *, metrics: Iterable[MetricValue] = ()
    ) -> None:
        self._change(trial_id, state=state, reason=reason)

    def find_measurement(self, key: str) -> tuple[int, dict[str, Any]] | None:
        return self._first.get(key)

    def add_measurement(
        self,
        trial_id: int,
        measurement: Mapping[str, Any],
        metrics: Mapping[str, Mapping[str, float | None]],
        *,
        task: str | None = None,
        reused_from: int | None = None,
    ) -> int:
        payload = dict(measurement)
        record = MeasurementRecord(
            key=payload["key"],
            task=task or payload["task"],
            seed=payload["seed"],
            status=payload["status"],
            payload=payload,
            reused_from=reused_from,
            created_at=_NOW,
        )
        held = self.trial(trial_id).measurements
        self._change(trial_id, measurements=(*held, record))
        self._first.setdefault(record.key, (trial_id, payload))
        return len(held) + 1

    def set_placement(self, trial_id: int, placement: Mapping[str, Any]) -> None:
        self._change(trial_id, placement=placement)

    def lose_worker(self, trial_id: int, reason: str) -> None:
        self._change(trial_id, state="preempted", reason=reason)

    def proposals(self, search_id: int, *, waiting: bool = False) -> Sequence[ProposalRecord]:
        return ()

    def link_proposal(self, proposal_id: int, trial_id: int) -> None:
        """Nobody adds to it."""

    def add_parts(self, search_id: int, parts: Iterable[tuple[str, str, str]]) -> None:
        """Nobody adds to it."""

    def _change(self, trial_id: int, **values: Any) -> None:
        self._trials[trial_id - 1] = replace(self._trials[trial_id - 1], **values)
