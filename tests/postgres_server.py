"""A PostgreSQL server of the tests' own: a temporary folder, a port of this machine, and fresh databases in it.

Its collation orders as a dictionary does and its clock is far from UTC, as those of servers in use may be.
"""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from processes import children, running

OWNER, PASSWORD = "archsearch_owner", "the owner's s3cret: 100% @ /?#"
START_SECONDS = 60
GUIDE = Path(__file__).parents[1] / "docs" / "dashboard.md"
REMEDY = "the PostgreSQL tests need its server: apt-get install postgresql (`make test-postgres` runs them)"
_PROGRAMS = "/usr/lib/postgresql/*/bin"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB", "autovacuum=off")


class PostgresServer:
    """A running server; its superuser `OWNER` logs in with `PASSWORD`, as everybody must."""

    def __init__(self, programs: Path, folder: Path, *, durable: bool = False) -> None:
        """Commits of a ``durable`` one reach the disk."""
        self._settings = () if durable else _FAST
        self._programs, self._folder = programs, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        self.port = free_port()
        self._made = 0

    @property
    def pid(self) -> int:
        """The process that all others of the running server come from."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, *, user: str = OWNER, password: str = PASSWORD) -> str:
        """The URL by which `user` reaches `database`, quoted as a URL must be."""
        from sqlalchemy.engine import URL

        place = URL.create("postgresql", user, password, "127.0.0.1", self.port, database)
        return place.render_as_string(hide_password=False)

    def execute(self, statement: str, *, database: str = "postgres", values: tuple[Any, ...] = ()) -> list[Any]:
        """What a statement gives, run by the superuser outside any transaction."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=OWNER, password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def new_database(self, template: str = "template0") -> str:
        """The name of a database that is a copy of `template`."""
        self._made += 1
        name = f"searches_{self._made}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def reader_url(self, database: str) -> str:
        """The URL by which a role reads `database` that is made by the very statements of docs/dashboard.md."""
        found = re.search(r"```sql\n(CREATE ROLE archsearch_reader .*?)```", GUIDE.read_text(), re.DOTALL)
        assert found is not None, f"{GUIDE} makes no role that may only read"
        for statement in found[1].replace("'...'", "'its s3cret'").strip().split(";\n"):
            made = self.execute("SELECT 1 FROM pg_roles WHERE rolname = 'archsearch_reader'")
            if not (made and statement.startswith("CREATE ROLE")):
                self.execute(statement, database=database)
        return self.url(database, user="archsearch_reader", password="its s3cret")

    def drop_database(self, name: str) -> None:
        """Ends whoever is in it first."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def initialise(self) -> None:
        """Makes the cluster's files."""
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        for path in (self._folder, secret):
            self.give(path)
        self._check(
            "initdb",
            f"--pgdata={self._folder / 'data'}",
            f"--username={OWNER}",
            f"--pwfile={secret}",
            "--no-sync",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--locale-provider=icu",
            "--icu-locale=en-US",
        )

    def give(self, path: Path) -> None:
        """Makes a file or a folder that of the user whom the server runs as."""
        if os.geteuid() == 0:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = (
            *self._settings,
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self._folder}",
            "timezone=Asia/Kolkata",
        )
        words = [word for setting in settings for word in ("-c", setting)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user(),
            )
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server, whoever is connected; SIGQUIT leaves files that need a recovery."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Ends the server's first process by SIGKILL, as a machine without memory does, and waits until its others have
        noticed: beside them none starts."""
        assert self._process is not None
        others = children(self.pid)
        self._process.kill()
        self._process.wait(timeout=START_SECONDS)
        self._process, deadline = None, time.monotonic() + START_SECONDS
        while any(running(other) for other in others):
            assert time.monotonic() < deadline, "processes of the server outlive it"
            time.sleep(0.05)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            log = (self._folder / "log").read_text(errors="replace")
            assert self._process is not None
            assert self._process.poll() is None, f"PostgreSQL ended before it answered:\n{log}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer:\n{log}"
            time.sleep(0.05)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody answers inside, until the server is started; after it the server runs."""
        self.stop()
        try:
            yield
        finally:
            if self._process is None:
                self.start()

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _check(self, program: str, *words: str) -> None:
        command = [self._programs / program, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, **self._as_user())
        assert done.returncode == 0, f"{program} failed:\n{done.stdout}{done.stderr}"

    def _as_user(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root: then it runs as the user that its package makes."""
        return {"user": self._user, "group": self._user, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server that runs; fails, with the remedy, where its programs or its driver are not installed."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="archsearch-postgres-"))
    server = PostgresServer(programs, folder, durable=durable)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _programs() -> Path:
    """The folder of the newest server's programs; Debian has them off the path."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        pytest.fail("the PostgreSQL tests need its driver: pip install 'archsearch[postgres]'")
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else [Path(folder) for folder in sorted(glob.glob(_PROGRAMS), key=_version)]
    folders = [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]
    if not folders:
        pytest.fail(REMEDY)
    return folders[-1]


def _version(folder: str) -> int:
    name = Path(folder).parent.name
    return int(name) if name.isdigit() else 0
