"""A search on a real Ray head that listens on this machine: submit, jobs, logs, stop, and going on."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archsearch.storage import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent
TOKEN: dict[str, str] = {}
"""The variables by which Ray's processes and clients of this test know each other."""
SPEC = """
name = "{name}"
[model]
d_model = 32
n_layers = 1
n_heads = 2
channel_mixer = "none"
[space]
mixers = ["full", "sliding"]
[space.full]
rope = [1.0]
[space.sliding]
window = [8]
sinks = [0]
rope = [1.0]
[[tasks]]
name = "mqar"
setting = "easy"
[recipe]
steps = {steps}
eval_every = 5
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
[search]
trials = 2
confirm_seeds = 0
concurrency = 1
"""


def free_ports(count: int) -> list[int]:
    """Between those of Ray's workers and those that the system hands out, so that nothing takes one before Ray does."""
    found = []
    for port in random.sample(range(20_000, 30_000), 200):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
    return found[:count]


def children(marker: str) -> list[int]:
    """Processes whose command line or environment names `marker`, which is this cluster's own folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in text and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port, dashboard, client, agent, grpc, metrics = free_ports(6)
    with tempfile.TemporaryDirectory(prefix="ar-", dir="/tmp") as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        TOKEN.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
        environment = {**os.environ, **TOKEN, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [
                BIN / "ray",
                "start",
                "--head",
                "--node-ip-address=127.0.0.1",
                f"--port={port}",
                "--include-dashboard=true",
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}",
                f"--ray-client-server-port={client}",
                f"--dashboard-agent-listen-port={agent}",
                f"--dashboard-agent-grpc-port={grpc}",
                f"--metrics-export-port={metrics}",
                "--num-cpus=2",
                "--object-store-memory=100000000",
                "--disable-usage-stats",
                f"--temp-dir={folder}/ray",
            ],
            env=environment,
            check=True,
            capture_output=True,
            timeout=180,
        )
        try:
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                for process in children(folder):
                    os.kill(process, number)
                time.sleep(2)


def archsearch(*words: str, code: int = 0, **variables: str) -> str:
    environment = {**os.environ, **TOKEN, **variables}
    done = subprocess.run([BIN / "archsearch", *words], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def jobs(address: str) -> dict[str, Any]:
    listed = json.loads(archsearch("jobs", "--address", address, "--json"))["jobs"]
    return {job["id"]: job for job in listed}


def spec(folder: Path, name: str, *, steps: int) -> str:
    path = folder / f"{name}.toml"
    path.write_text(SPEC.format(name=name, steps=steps))
    return str(path)


def test_a_search_runs_to_its_end(address: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    told = archsearch(
        "submit", spec(tmp_path, "short", steps=5), "--address", address, "--storage", url, "--job-id", "one"
    )
    assert "archsearch logs one" in told
    followed = archsearch("logs", "one", "--address", address, "--follow")
    assert "next:\n  archsearch pareto short" in followed
    assert jobs(address)["one"]["status"] == "SUCCEEDED"
    with Store.open(url, read_only=True) as store:
        assert store.search("short").state == "complete"
    again = archsearch("submit", spec(tmp_path, "short", steps=5), "--address", address, "--job-id", "one", code=5)
    assert 'already has a job "one"' in again


def test_a_stopped_search_goes_on(address: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    path = spec(tmp_path, "long", steps=400)
    archsearch("submit", path, "--address", address, "--storage", url, "--job-id", "long-1")
    deadline = time.monotonic() + 240
    while "started" not in archsearch("logs", "long-1", "--address", address) and time.monotonic() < deadline:
        time.sleep(1)
    assert "STOPPED" in archsearch("stop", "long-1", "--address", address)
    with Store.open(url, read_only=True) as store:
        search = store.search("long")
        assert search.state == "cancelled"
        assert not store.trials(search.id, states=("running", "queued"))
    archsearch("submit", path, "--address", address, "--storage", url, "--job-id", "long-2", "--resume")
    archsearch("logs", "long-2", "--address", address, "--follow")
    with Store.open(url, read_only=True) as store:
        search = store.search("long")
        assert search.state == "complete"
        assert {trial.state for trial in store.trials(search.id)} == {"complete"}


def test_a_database_in_the_jobs_own_folder_is_refused(address: str, tmp_path: Path) -> None:
    archsearch("submit", spec(tmp_path, "lost", steps=5), "--address", address, "--job-id", "lost")
    assert "set ARCHSEARCH_STORAGE on the cluster" in archsearch(
        "logs", "lost", "--address", address, "--follow", code=1
    )


def test_a_job_without_room_says_so(address: str, tmp_path: Path) -> None:
    told = archsearch(
        "submit", spec(tmp_path, "large", steps=5), "--address", address, "--job-id", "large", "--cpus", "64"
    )
    assert "PENDING" in told
    assert "no node of the cluster has room for it" in told
    assert "Ray stops a job only once it has started" in archsearch("stop", "large", "--address", address, code=5)


def test_an_unknown_job_is_told(address: str) -> None:
    for command in ("logs", "stop"):
        assert 'has no job "none"' in archsearch(command, "none", "--address", address, code=5)


def test_a_client_without_the_token_is_told(address: str) -> None:
    assert "set RAY_AUTH_MODE=token" in archsearch("jobs", "--address", address, code=5, RAY_AUTH_MODE="disabled")
