"""Searches whose parts are killed at random moments lose nothing; `ARCHSEARCH_SOAK_ROUNDS` says how often (5)."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from soak import Round, Soak, report

ROUNDS = int(os.environ.get("ARCHSEARCH_SOAK_ROUNDS", "5"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(ROUNDS * 4 * 1200)]


def soaked(soak: Soak, targets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rounds: list[Round] = []
    for number, target in itertools.product(range(ROUNDS), targets):
        begun = time.monotonic()
        rounds.append(soak.round(f"{target}-{number}", target))
        with capsys.disabled():
            print(f"round {number + 1}, {target}: {time.monotonic() - begun:.0f} s, {rounds[-1]}", flush=True)
    with capsys.disabled():
        print(f"\n{soak.url.partition(':')[0]}\n{report(rounds)}")
    assert [round for round in rounds if round.lost or round.running or round.retrained] == []
    assert not list(soak.folder.glob("archsearch-*"))


def test_nothing_is_lost_on_sqlite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soaked(Soak(tmp_path, f"sqlite:///{tmp_path}/soak.db"), ["driver", "worker", "raylet"], capsys)


@pytest.mark.postgres
def test_nothing_is_lost_on_postgresql(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soak = Soak(tmp_path, postgres_url, server=postgres)
    soaked(soak, ["driver", "worker", "raylet", "database"], capsys)
