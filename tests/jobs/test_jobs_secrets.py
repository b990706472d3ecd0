"""A canary for the database's password: it is in no file, no process and no answer of the cluster but in the file that
holds it."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from ray_head import Head, ray_head
from test_jobs_cluster import SPEC

from archsearch.jobs import Cluster
from archsearch.jobs.following import follow
from archsearch.storage import Store

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.timeout(1800)]

CANARY = f"canary{secrets.token_hex(8)}"
PAGES = (
    "/api/jobs/",
    "/api/jobs/watched",
    "/api/jobs/watched/logs",
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
    """The file on the cluster that holds the URL; written by the test, once the server runs."""
    with tempfile.TemporaryDirectory(prefix="archsearch-storage-") as folder:
        path = Path(folder) / "storage"
        path.touch(0o600)
        yield path


@pytest.fixture(scope="module")
def head(storage: Path) -> Iterator[Head]:
    with ray_head(ARCHSEARCH_STORAGE_FILE=str(storage)) as found:
        yield found


def answers(head: Head) -> dict[str, str]:
    """What the cluster says on every page that tells of jobs, processes and nodes."""
    token = Path(head.client["RAY_AUTH_TOKEN_PATH"]).read_text()
    found = {}
    for page in PAGES:
        asked = urllib.request.Request(head.address + page, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                found[page] = answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            found[page] = error.read().decode("utf-8", "replace")
    return found


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


def test_the_password_is_nowhere_but_in_its_file(
    head: Head,
    storage: Path,
    postgres: PostgresServer,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in head.client.items():
        monkeypatch.setenv(name, value)
    postgres.execute(f"CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{CANARY}'")
    database = postgres_url.rpartition("/")[2]
    url = postgres.url(database, user="canary", password=CANARY)
    storage.write_text(url)
    assert told_by_files(storage.parent) == [storage], "the search for the canary finds none"
    spec = tmp_path / "watched.toml"
    spec.write_text(SPEC.format(name="watched", steps=40))
    said = head.archsearch("submit", str(spec), "--job-id", "watched")
    cluster = Cluster(head.address)
    during: list[str] = []
    job = follow(cluster, "watched", lambda text: during.extend(told_by_processes()), tell=during.append)
    assert job.status == "SUCCEEDED", cluster.logs("watched")
    said += head.archsearch("logs", "watched") + head.archsearch("jobs") + head.archsearch("doctor")
    assert during == []
    assert CANARY not in said
    assert CANARY not in cluster.logs("watched")
    assert [page for page, text in answers(head).items() if CANARY in text] == []
    assert CANARY not in _environment_of_a_job(cluster)
    assert told_by_files(head.folder, Path(head.client["XDG_STATE_HOME"]), tmp_path) == []
    with Store.open(url, read_only=True) as store:
        assert store.search("watched").state == "complete"
        assert CANARY not in json.dumps(store.search("watched").spec)


def _environment_of_a_job(cluster: Cluster) -> str:
    """What whoever may submit reads of the environment that Ray was started with."""
    cluster.submit("curious", "env; echo the-end", metadata={}, runtime_env={})
    follow(cluster, "curious", lambda text: None, tell=lambda text: None)
    said = cluster.logs("curious")
    assert "ARCHSEARCH_STORAGE_FILE=" in said
    assert "the-end" in said
    return said
