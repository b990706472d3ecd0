"""A canary for the database's password: it is in no file, no process and no answer of the cluster but in the file that
holds it, the database's URL or libpq's passfile."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from ray_head import Head, ray_head
from test_jobs_cluster import SPEC

from archsearch.storage import Store

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(1800)]

CANARY = f"canary{secrets.token_hex(8)}"
PAGES = (
    "/api/jobs/",
    "/api/jobs/{job}",
    "/api/jobs/{job}/logs",
    "/api/cluster_status",
    "/api/component_activities",
    "/api/version",
    "/api/v0/actors?detail=1",
    "/api/v0/jobs?detail=1",
    "/api/v0/nodes?detail=1",
    "/api/v0/runtime_envs?detail=1",
    "/api/v0/tasks?detail=1",
    "/api/v0/workers?detail=1",
    "/events",
    "/logical/actors",
    "/nodes?view=summary",
    "/nodes?view=details",
)


@pytest.fixture(scope="module")
def storage() -> Iterator[Path]:
    """The file on the cluster that holds the URL, with libpq's passfile beside it; written by the test, once the server
    runs."""
    with tempfile.TemporaryDirectory(prefix="archsearch-storage-") as folder:
        path = Path(folder) / "storage"
        for file in (path, path.with_name("pgpass")):
            file.touch(0o600)
        yield path


@pytest.fixture(scope="module")
def head(storage: Path) -> Iterator[Head]:
    with ray_head(ARCHSEARCH_STORAGE_FILE=str(storage), PGPASSFILE=str(storage.with_name("pgpass"))) as found:
        yield found


@pytest.fixture(scope="module")
def canary(postgres: PostgresServer) -> str:
    """A role whose password is the canary."""
    postgres.execute(f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{CANARY}'")
    return "canary"


def asked(head: Head, page: str, body: dict[str, Any] | None = None) -> str:
    """What the cluster answers to whoever has its token."""
    token = Path(head.client["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(head.address + page, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        return error.read().decode("utf-8", "replace")


def ended(head: Head, job: str, look: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The job once it has finished; `look` is called while it runs."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        found: dict[str, Any] = json.loads(asked(head, f"/api/jobs/{job}"))
        if found["status"] in ("SUCCEEDED", "FAILED", "STOPPED"):
            return found
        look()
        time.sleep(1)
    raise AssertionError(f"{job} has not ended: {found}")


def told_by_processes() -> list[str]:
    """Processes of this machine whose arguments or variables have the canary; this one, which made it, is none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                if CANARY.encode() in (process / name).read_bytes() and int(process.name) != os.getpid():
                    found.append(f"{name} of {process.name}")
            except OSError:
                continue
    return found


def told_by_files(*folders: Path) -> list[Path]:
    """Files in which the canary stands."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes():
                    found.append(path)
            except OSError:
                continue
    return found


@pytest.mark.parametrize("way", ["file", "passfile"])
def test_the_password_is_nowhere_but_in_its_file(
    head: Head, storage: Path, postgres: PostgresServer, canary: str, postgres_url: str, tmp_path: Path, way: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    url = postgres.url(database, user=canary, password=CANARY)
    passfile = storage.with_name("pgpass")
    storage.write_text(url if way == "file" else url.replace(f":{CANARY}", ""))
    passfile.write_text("" if way == "file" else f"127.0.0.1:{postgres.port}:{database}:{canary}:{CANARY}\n")
    holder = storage if way == "file" else passfile
    assert told_by_files(storage.parent) == [holder], "the search for the canary finds none"
    name, spec = f"watched-{way}", tmp_path / "watched.toml"
    spec.write_text(SPEC.format(name=name, steps=40))
    said = head.archsearch("submit", str(spec), "--job-id", name)
    during: list[str] = []

    def look() -> None:
        during.extend(told_by_processes())
        during.extend(map(str, told_by_files(head.folder / "tmp")))  # what Tune writes, which it removes in the end

    job = ended(head, name, look)
    said += head.archsearch("logs", name) + head.archsearch("jobs") + head.archsearch("doctor")
    assert job["status"] == "SUCCEEDED", said
    assert during == []
    assert CANARY not in said
    assert [page for page in PAGES if CANARY in asked(head, page.format(job=name))] == []
    assert CANARY not in environment_of_a_job(head, f"curious-{way}")
    assert told_by_files(head.folder, Path(head.client["XDG_STATE_HOME"]), tmp_path) == []
    with Store.open(url, read_only=True) as store:
        assert store.search(name).state == "complete"
        assert CANARY not in json.dumps(store.search(name).spec)


def test_a_password_in_the_environment_of_ray_is_refused(tmp_path: Path) -> None:
    spec = tmp_path / "open.toml"
    spec.write_text(SPEC.format(name="open", steps=5))
    url = f"sqlite:///{tmp_path}/searches.db"
    with ray_head(ARCHSEARCH_STORAGE=f"postgresql://u:{CANARY}@127.0.0.1:1/d") as found:
        assert CANARY in environment_of_a_job(found, "curious")
        said = found.archsearch("submit", str(spec), "--storage", url, code=5)
        assert "every job can read the database's password in the environment of Ray (ARCHSEARCH_STORAGE on " in said
        assert "no search was submitted" in found.archsearch("jobs")
        assert "ARCHSEARCH_STORAGE on " in found.archsearch("doctor", "--json", code=1)
        said += found.archsearch("submit", str(spec), "--storage", url, "--insecure", "--job-id", "open")
        assert "submitted open as job open" in said
        assert CANARY not in said + found.archsearch("logs", "open")


def environment_of_a_job(head: Head, job: str) -> str:
    """What whoever may submit reads of the environment that Ray was started with."""
    asked(head, "/api/jobs/", {"entrypoint": "env; echo the-end", "submission_id": job})
    ended(head, job)
    said = asked(head, f"/api/jobs/{job}/logs")
    assert "ARCHSEARCH_STORAGE" in said
    assert "the-end" in said
    return said
