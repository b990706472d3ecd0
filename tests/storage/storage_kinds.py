"""Which databases a test of the store is about, where it is not about all."""

from __future__ import annotations

import pytest

SQLITE = pytest.param("sqlite", id="sqlite")
POSTGRESQL = pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgres)

on_sqlite = pytest.mark.parametrize("url", [SQLITE], indirect=True)
on_postgres = pytest.mark.parametrize("url", [POSTGRESQL], indirect=True)
