"""Kinds of database that a fixture can be asked for; tests on a server carry the marker `postgres`."""

from __future__ import annotations

import pytest

SQLITE = pytest.param("sqlite", id="sqlite")
POSTGRESQL = pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgres)
SLOW_POSTGRESQL = pytest.param("postgresql", id="postgresql", marks=[pytest.mark.postgres, pytest.mark.slow])

on_sqlite = pytest.mark.parametrize("url", [SQLITE], indirect=True)
on_postgres = pytest.mark.parametrize("url", [POSTGRESQL], indirect=True)
