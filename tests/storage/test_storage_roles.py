"""Roles of a shared server, as deploy/postgres makes them: who may read, who may write, and who may change tables."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from database_kinds import on_postgres
from postgres_server import OWNER, PASSWORD, PostgresServer
from sqlalchemy.engine import make_url
from storage_samples import OBJECTIVES, measurement
from test_storage_lease import new_trial

from archsearch.errors import StorageError
from archsearch.storage import Lease, Store, TrialQuery, current, head, schema, upgrade

ROLES = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"
REFUSED = re.compile("permission denied|must be owner|must be superuser")
NAMES = ("archsearch_migrator", "archsearch_writer", "archsearch_reader")


class Installation:
    """A database that an administrator made with the three roles."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self.server, self.database = server, str(make_url(url).database)

    def make_roles(self) -> None:
        """Runs the file by psql, as its first lines say."""
        command = ["psql", "--set=ON_ERROR_STOP=1", f"--dbname={self.database}", f"--file={ROLES}", "--quiet"]
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "PGUSER": OWNER, "PGPASSWORD": PASSWORD}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **where})
        assert (done.returncode, done.stderr) == (0, "")

    def url(self, role: str) -> str:
        """How the role logs in, once it has its password."""
        self.server.execute(f"ALTER ROLE {role} PASSWORD 'of_{role}'")
        return self.server.url(self.database, user=role, password=f"of_{role}")


@pytest.fixture
def installed(postgres: PostgresServer, blank_postgres_url: str) -> Iterator[Installation]:
    """Roles, then tables, each once, as the README, compose and Kubernetes have it."""
    made = Installation(postgres, blank_postgres_url)
    made.make_roles()
    assert upgrade(made.url("archsearch_migrator")) == head()
    yield made
    postgres.drop_database(made.database)
    for role in NAMES:
        postgres.execute(f"DROP ROLE {role}")


def fill(url: str) -> int:
    """What a driver writes, and one that takes over."""
    with Store.open(url) as store:
        lease = Lease(store, store.create_search("shared", {}, OBJECTIVES, parts=[("core", "1", "aa")]))
        trial = lease.add_trial(lease.search_id, new_trial(state="running", violations={}, unexercised=()))
        scores = {"validation": {"recall": 0.5}, "test": {"recall": 0.5}}
        lease.add_measurement(trial, measurement(), scores, task="mqar")
        lease.heartbeat(lease.search_id)
        lease.set_trial_state(trial, "complete")
        lease.set_parts(lease.search_id, [])
        lease.set_search_state(lease.search_id, "complete")
    return trial


@pytest.mark.postgres
def test_the_writer_writes_and_the_reader_reads(installed: Installation) -> None:
    trial = fill(installed.url("archsearch_writer"))
    with Store.open(installed.url("archsearch_reader"), read_only=True) as store:
        assert [record.name for record in store.searches()] == ["shared"]
        assert store.trial(trial).state == "complete"
        assert store.trial_page("shared", TrialQuery(text="full"), metrics=["recall"]).total == 1
        assert len(store.sample("shared", 5).archs) == 1
        assert len(store.candidates_frame("shared")) == 1
        assert len(store.values_frame("shared", ["recall"], ("test",))) == 1
        assert len(store.searches_frame()) == len(store.trials_frame("shared")) == 1
        assert store.revision(store.search("shared").id)


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE search SET state = 'failed'",
        "INSERT INTO part (search_id, name, version, digest) VALUES (1, 'a', 'b', 'c')",
        "DELETE FROM metric",
        "TRUNCATE metric",
        "CREATE TABLE mine (id int)",
        "DROP TABLE metric",
        "CREATE SCHEMA mine",
        "SELECT nextval('search_id_seq')",
        "CREATE TEMPORARY TABLE mine (id int)",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY search TO PROGRAM 'cat'",
    ],
)
def test_the_reader_can_do_nothing_else(installed: Installation, statement: str) -> None:
    assert REFUSED.search(said_to(installed, "archsearch_reader", statement))


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "DROP TABLE metric",
        "ALTER TABLE search ADD COLUMN mine int",
        "TRUNCATE metric",
        "UPDATE archsearch_version SET version_num = '9999'",
        "DELETE FROM archsearch_version",
    ],
)
def test_the_writer_changes_no_table(installed: Installation, statement: str) -> None:
    assert REFUSED.search(said_to(installed, "archsearch_writer", statement))


@pytest.mark.postgres
@pytest.mark.parametrize("grantee", ["archsearch_writer", "PUBLIC", '"Somebody else"'])
def test_an_upgrade_closes_the_version_to_whom_it_was_open(installed: Installation, grantee: str) -> None:
    """Also where there is nothing to upgrade."""
    installed.server.execute('CREATE ROLE "Somebody else"')
    try:
        installed.server.execute(
            f"GRANT UPDATE, TRUNCATE ON archsearch_version TO {grantee}", database=installed.database
        )
        assert upgrade(installed.url("archsearch_writer")) == head(), "whoever may not revoke is not in the way"
        assert "UPDATE" in rights(installed, grantee)
        assert upgrade(installed.url("archsearch_migrator")) == head()
        assert rights(installed, grantee) <= {"SELECT"}
        assert "UPDATE" in rights(installed, "archsearch_migrator")
    finally:
        installed.server.execute('DROP ROLE "Somebody else"')


def rights(installed: Installation, grantee: str) -> set[str]:
    """What a role may do to the version's table."""
    query = "SELECT privilege_type FROM information_schema.table_privileges WHERE table_name = %s AND grantee = %s"
    values = ("archsearch_version", grantee.strip('"'))
    return {right for (right,) in installed.server.execute(query, database=installed.database, values=values)}


def said_to(installed: Installation, role: str, statement: str) -> str:
    """What the server says to a role that runs `statement`, though it allows itself to write."""
    import psycopg

    with psycopg.connect(installed.url(role), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(statement.encode())
    return str(caught.value)


@pytest.mark.postgres
def test_a_store_that_opens_to_write_is_told_so(installed: Installation) -> None:
    with Store.open(installed.url("archsearch_reader")) as store, pytest.raises(StorageError, match="it is read-only"):
        store.create_search("mine", {}, [])


@pytest.mark.postgres
def test_nobody_else_comes_in(installed: Installation) -> None:
    installed.server.execute("CREATE ROLE passer_by LOGIN PASSWORD 'passer'")
    try:
        url = installed.server.url(installed.database, user="passer_by", password="passer")
        with pytest.raises(StorageError, match="permission denied for database"):
            Store.open(url)
    finally:
        installed.server.execute("DROP ROLE passer_by")


@pytest.mark.postgres
@pytest.mark.parametrize("role", ["archsearch_writer", "archsearch_reader"])
def test_only_the_migrator_upgrades(postgres: PostgresServer, installed: Installation, role: str) -> None:
    """Of tables that somebody else made before there were roles."""
    postgres.execute("DROP OWNED BY archsearch_migrator", database=installed.database)
    older(installed)
    installed.make_roles()
    with pytest.raises(StorageError, match=r"must be owner|permission denied|read-only"):
        upgrade(installed.url(role))
    assert upgrade(installed.url("archsearch_migrator")) == head()
    assert fill(installed.url("archsearch_writer"))


def older(installed: Installation) -> None:
    """Tables of the first schema, made by the superuser."""
    from alembic import command

    from archsearch.storage.engine import open_engine

    url = installed.server.url(installed.database)
    engine = open_engine(url)
    with engine.begin() as connection:
        command.upgrade(schema._config(connection), "0001")
    engine.dispose()
    assert current(url) == "0001"


@on_postgres
def test_the_roles_of_a_database_are_made_once(installed: Installation, url: str) -> None:
    """A second database of the same server gets the same ones."""
    other = Installation(installed.server, url)
    other.make_roles()
    assert fill(other.url("archsearch_writer"))
    with Store.open(other.url("archsearch_reader"), read_only=True) as store:
        assert len(store.searches()) == 1
