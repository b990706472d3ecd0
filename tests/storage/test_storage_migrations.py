"""Migrations: what a database of an earlier schema holds is read as before once it is upgraded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from alembic import command
from raw_rows import insert, writing
from sqlalchemy import Connection, text

from archsearch.exercise import Unexercised
from archsearch.storage import Driver, Store, current, head, schema, upgrade

pytestmark = pytest.mark.usefixtures("migrated")

CURVE = [{"step": 1, "loss": 2.5}]
WHEN = "2026-01-02 03:04:05.000006+00:00"
SEEN = "sliding(window=64) sees all of up to 64 tokens, measured on 48"
BLOCKS = "moba(block_size=8, label=a by b) sees all of up to 128 tokens, measured on 64"


def _trial(connection: Connection, number: int, unexercised: list[Any]) -> None:
    insert(
        connection,
        "trial",
        id=number,
        search_id=1,
        number=number,
        kind="search",
        state="complete",
        reason="",
        arch={"layers": []},
        digest=f"d{number}",
        pattern="full",
        params={},
        seeds=[0],
        violations={},
        unexercised=unexercised,
        created_at=WHEN,
    )


def _measurement(connection: Connection, number: int, payload: dict[str, Any] | list[Any]) -> None:
    insert(
        connection,
        "measurement",
        trial_id=number,
        key=f"k{number}",
        task="mqar",
        seed=0,
        status="complete",
        payload=payload,
        created_at=WHEN,
    )


TRIALS: list[list[Any]] = [
    [],
    [SEEN],
    [SEEN, f"{SEEN} by mqar", f"{SEEN} by niah"],
    [f"{BLOCKS} by mqar", SEEN, f"{BLOCKS} by mqar", BLOCKS],
    ["a sentence of a plugin"],
]
EXPECTED: list[list[tuple[str, str, int, int]]] = [
    [],
    [("sliding(window=64)", "", 48, 64)],
    [("sliding(window=64)", "mqar", 48, 64), ("sliding(window=64)", "niah", 48, 64)],
    [("moba(block_size=8, label=a by b)", "mqar", 64, 128), ("sliding(window=64)", "", 48, 64)],
    [("a sentence of a plugin", "", 0, 0)],
]


@pytest.fixture
def old_url(blank_url: str) -> str:
    """A database of schema 0001 that holds a search with trials and measurements."""
    with writing(blank_url) as connection:
        command.upgrade(schema._config(connection), "0001")
        insert(
            connection,
            "search",
            id=1,
            name="old",
            state="cancelled",
            reason="Ctrl-C",
            spec={"seed": 0},
            objectives=[],
            created_at=WHEN,
            heartbeat_at=WHEN,
        )
        for number, unexercised in enumerate(TRIALS):
            _trial(connection, number, unexercised)
            _measurement(connection, number, {"task": "mqar:compact", "unexercised": unexercised, "curve": CURVE})
    return blank_url


def _of(entries: list[dict[str, Any]]) -> list[tuple[str, str, int, int]]:
    return [(entry["layer"], entry["task"], entry["seq_len"], entry["dense_up_to"]) for entry in entries]


def test_layers_that_were_not_exercised_become_data(old_url: str) -> None:
    assert current(old_url) == "0001"
    assert upgrade(old_url) == current(old_url) == head()
    with Store.open(old_url) as store:
        records = store.trials(1)
        frame = store.trials_frame("old")
        exercised = store.candidates_frame("old")["exercised"]
    assert [_of([entry.to_json() for entry in record.unexercised]) for record in records] == EXPECTED
    assert all(isinstance(entry, Unexercised) for record in records for entry in record.unexercised)
    assert [_of(entries) for entries in frame["unexercised"]] == EXPECTED
    assert exercised.tolist() == frame["exercised"].tolist() == [not layers for layers in EXPECTED]


def test_payloads_of_measurements_become_data_too(old_url: str) -> None:
    upgrade(old_url)
    with Store.open(old_url) as store:
        payloads = [store.trial(number).measurements[0].payload for number in range(len(TRIALS))]
    assert [payload["curve"] for payload in payloads] == [CURVE] * len(TRIALS)
    assert _of(payloads[1]["unexercised"]) == [("sliding(window=64)", "mqar:compact", 48, 64)]
    assert _of(payloads[4]["unexercised"]) == [("a sentence of a plugin", "", 0, 0)]


def test_what_was_stored_before_stays_and_goes_on(old_url: str) -> None:
    upgrade(old_url)
    with Store.open(old_url) as store:
        record = store.search("old")
        assert (record.state, record.reason, record.spec) == ("cancelled", "Ctrl-C", {"seed": 0})
        assert (record.driver, record.beats, store.parts(1)) == (None, 0, {})
        claimed = store.claim_search(1, driver=Driver.here())
        assert (claimed.driver, claimed.beats) == (Driver.here(), 1)


@pytest.mark.parametrize("payload", [["no mapping"], {"unexercised": "no list"}, {"unexercised": {"a": 1}}, {}])
def test_a_payload_of_another_shape_stops_no_upgrade(old_url: str, payload: dict[str, Any] | list[Any]) -> None:
    with writing(old_url) as connection:
        connection.execute(
            text("UPDATE measurement SET payload = :payload WHERE id = 1"), {"payload": json.dumps(payload)}
        )
    assert upgrade(old_url) == head()
    with writing(old_url) as connection:
        stored = connection.scalar(text("SELECT CAST(payload AS TEXT) FROM measurement WHERE id = 1"))
    assert json.loads(str(stored)) == payload


def test_more_rows_than_are_read_at_once(old_url: str) -> None:
    with writing(old_url) as connection:
        for number in range(10, 2010):
            _trial(connection, number, [SEEN])
    upgrade(old_url)
    with Store.open(old_url) as store:
        told = [_of(entries) for entries in store.trials_frame("old")["unexercised"][len(TRIALS) :]]
    assert told == [EXPECTED[1]] * 2000


def test_back_to_the_schema_before(old_url: str) -> None:
    upgrade(old_url)
    with writing(old_url) as connection:
        command.downgrade(schema._config(connection), "0001")
        stored = connection.execute(text("SELECT CAST(unexercised AS TEXT) FROM trial ORDER BY id")).scalars().all()
        payload = connection.scalar(text("SELECT CAST(payload AS TEXT) FROM measurement ORDER BY id LIMIT 1 OFFSET 1"))
    assert json.loads(stored[1]) == [SEEN]
    assert json.loads(stored[2]) == [f"{SEEN} by mqar", f"{SEEN} by niah"]
    assert json.loads(stored[4]) == ["a sentence of a plugin"]
    assert json.loads(str(payload))["unexercised"] == [SEEN]
    assert upgrade(old_url) == head()
