"""At once: what a driver writes of a trial, each as one statement of PostgreSQL, and so one round trip and one commit.

Every statement first asks for the search under the driver's fence, and writes nothing where there is none. It answers
with no row where something stands in its way; whoever asked then goes the longer way, which finds out what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Integer, String, TextClause, bindparam, text

from archsearch.storage.tables import PlainText

_JSON = JSON()
_TYPES: dict[str, Any] = {
    "search": Integer(),
    "fence": Integer(),
    "trial": Integer(),
    "kind": String(),
    "state": String(),
    "reason": PlainText(),
    "arch": _JSON,
    "digest": String(),
    "pattern": PlainText(),
    "params": _JSON,
    "seeds": _JSON,
    "violations": _JSON,
    "unexercised": _JSON,
    "parent": Integer(),
    "running": Boolean(),
    "open": Boolean(),
    "metrics": _JSON,
    "key": String(),
    "task": String(),
    "seed": BigInteger(),
    "status": String(),
    "payload": _JSON,
    "reused_from": Integer(),
}

_HELD = """WITH held AS (
    SELECT id FROM search WHERE id = :search AND fence = :fence FOR NO KEY UPDATE
)"""
_METRICS = """json_to_recordset(:metrics)
    AS m(name text, split text, task text, seed bigint, step bigint, value double precision)"""
_INSERT_METRICS = f"""INSERT INTO metric (trial_id, name, split, task, seed, step, value)
    SELECT done.id, m.name, m.split, m.task, m.seed, m.step, m.value FROM done, {_METRICS}"""


def _statement(sql: str, *names: str) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, type_=_TYPES[name]) for name in ("search", "fence", *names)))


HEARTBEAT = _statement(
    """UPDATE search SET heartbeat_at = statement_timestamp(), beats = beats + 1
    WHERE id = :search AND fence = :fence RETURNING id"""
)

ADD_TRIAL = _statement(
    f"""{_HELD}, done AS (
    INSERT INTO trial (search_id, number, kind, state, reason, arch, digest, pattern, params, seeds, violations,
        unexercised, parent_id, created_at, started_at, finished_at)
    SELECT held.id, (SELECT coalesce(max(number) + 1, 0) FROM trial WHERE search_id = :search), :kind, :state,
        :reason, :arch, :digest, :pattern, :params, :seeds, :violations, :unexercised, :parent, statement_timestamp(),
        CASE WHEN :running THEN statement_timestamp() END, CASE WHEN NOT :open THEN statement_timestamp() END
    FROM held
    ON CONFLICT ON CONSTRAINT uq_trial_search_id_number DO NOTHING
    RETURNING id
), kept AS ({_INSERT_METRICS})
SELECT id FROM done""",
    *("kind", "state", "reason", "arch", "digest", "pattern", "params", "seeds", "violations", "unexercised", "parent"),
    *("running", "open", "metrics"),
)

_SET_STATE = f"""{_HELD}, done AS (
    UPDATE trial SET state = :state, reason = :reason,
        started_at = CASE WHEN :running THEN statement_timestamp() ELSE started_at END,
        finished_at = CASE WHEN NOT :open THEN statement_timestamp() END
    FROM held WHERE trial.id = :trial AND trial.search_id = held.id
    RETURNING trial.id
)"""
SET_STATE = _statement(f"{_SET_STATE} SELECT id FROM done", "trial", "state", "reason", "running", "open")
END_WITH_METRICS = _statement(
    f"""{_SET_STATE}, gone AS (
    DELETE FROM metric USING done, {_METRICS}
    WHERE metric.trial_id = done.id AND (metric.name, metric.split) = (m.name, m.split)
        AND metric.task IS NOT DISTINCT FROM m.task AND metric.seed IS NOT DISTINCT FROM m.seed
        AND metric.step IS NOT DISTINCT FROM m.step
), kept AS ({_INSERT_METRICS})
SELECT id FROM done""",
    *("trial", "state", "reason", "running", "open", "metrics"),
)

ADD_MEASUREMENT = _statement(
    f"""{_HELD}, source AS (
    SELECT id FROM trial WHERE id = :reused_from FOR KEY SHARE
), made AS (
    INSERT INTO measurement (trial_id, key, task, seed, status, payload, reused_from, created_at)
    SELECT trial.id, :key, :task, :seed, :status, :payload,
        CASE WHEN :reused_from IS NOT NULL THEN coalesce((SELECT id FROM source), trial.id) END, statement_timestamp()
    FROM held JOIN trial ON trial.search_id = held.id WHERE trial.id = :trial
    ON CONFLICT ON CONSTRAINT uq_measurement_trial_id_task_seed DO NOTHING
    RETURNING id, trial_id
), done AS (SELECT trial_id AS id FROM made
), gone AS (
    DELETE FROM metric USING done WHERE metric.trial_id = done.id AND metric.task = :task AND metric.seed = :seed
), kept AS ({_INSERT_METRICS})
SELECT id FROM made""",
    *("trial", "key", "task", "seed", "status", "payload", "reused_from", "metrics"),
)


def metrics_json(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of metrics as `_METRICS` reads them: the trial is that of the statement."""
    return [{name: value for name, value in row.items() if name != "trial_id"} for row in rows]
