"""The scripts of the image, run against stand-ins, and checked by what reads shell."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from deploy_files import DEPLOY, ROOT, SCRIPTS, ident

CONTAINER = DEPLOY / "container"


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A folder of programs that write down how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ray", "archsearch"):
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*"\nenv | grep -E "^(RAY|PG)" | sort\n')
        program.chmod(0o755)
    return folder


def started(words: list[str], stand_ins: Path, secrets: Path, private: Path, **more: str) -> str:
    environment = {
        "PATH": f"{stand_ins}:{os.environ['PATH']}",
        "SECRETS": str(secrets),
        "PRIVATE": str(private),
        **more,
    }
    command = ["bash", str(CONTAINER / "entrypoint.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "ray_token").write_text("canary")
    (folder / "pgpass").write_text("h:5432:d:u:canary\n")
    return folder


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = tmp_path / "private"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("path", SCRIPTS, ids=ident)
def test_bash_reads_it(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert "set -euo pipefail" in path.read_text()


@pytest.mark.parametrize("path", SCRIPTS, ids=ident)
def test_shellcheck_finds_nothing(path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
    assert done.stdout == ""


def test_secrets_become_files_of_one_user_and_no_variables(stand_ins: Path, secrets: Path, private: Path) -> None:
    said = started(["archsearch", "run", "x"], stand_ins, secrets, private)
    assert said.startswith("archsearch run x\n")
    assert f"RAY_AUTH_TOKEN_PATH={private}/ray_token" in said
    assert "RAY_AUTH_MODE=token" in said
    assert f"PGPASSFILE={private}/pgpass" in said
    assert "canary" not in said
    for name in ("ray_token", "pgpass"):
        assert (private / name).read_bytes() == (secrets / name).read_bytes()
        assert stat.S_IMODE((private / name).stat().st_mode) == 0o600


def test_a_head_takes_no_trials_and_a_worker_finds_it(stand_ins: Path, secrets: Path, private: Path) -> None:
    head = started(["head"], stand_ins, secrets, private, NODE_NAME="localhost")
    assert "--head --block" in head
    assert "--num-cpus 0 --node-ip-address 127.0.0.1 --port 6379" in head
    worker = started(["worker"], stand_ins, secrets, private, NODE_NAME="localhost", HEAD_ADDRESS="ray-head:6379")
    assert "ray start --block" in worker
    assert "--address ray-head:6379" in worker


@pytest.mark.parametrize("part", ["head", "worker"])
def test_a_node_without_a_token_does_not_start(part: str, stand_ins: Path, tmp_path: Path, private: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        started([part], stand_ins, tmp_path / "none", private, NODE_NAME="localhost")
    assert "mount the secret ray_token" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as refused:
        started([part], stand_ins, tmp_path / "none", private, NODE_NAME="localhost", RAY_AUTH_MODE="banana")
    assert 'RAY_AUTH_MODE is "banana": set it to token, or to disabled' in refused.value.stderr


def test_health_asks_the_part(tmp_path: Path) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/_stcore/health" else 500)
            self.end_headers()

        def log_message(self, *said: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        script = tmp_path / "health.sh"
        text = (CONTAINER / "health.sh").read_text()
        script.write_text(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{server.server_port}", text))
        codes = {
            part: subprocess.run(
                ["bash", str(script)], env={**os.environ, "PART": part}, capture_output=True
            ).returncode
            for part in ("dashboard", "node", "")
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert codes["dashboard"] == codes[""] == 0
    assert codes["node"] != 0


def test_every_installation_is_pinned() -> None:
    text = (CONTAINER / "install.sh").read_text()
    installs = [line for line in text.splitlines() if " install " in line and "pip[@]" in line]
    assert len(installs) == 4
    for line in installs:
        assert "constraints.txt" in line or '"pip==$PIP_VERSION"' in line
    assert re.search(r"^PIP_VERSION=\d+\.\d+", text, re.M)


def test_the_image_is_no_root_s_and_names_its_sources() -> None:
    text = (CONTAINER / "Containerfile").read_text()
    assert re.search(r"^USER 10001", text, re.M)
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    copied = re.findall(r"^COPY (.+) \S+$", text, re.M)
    assert copied
    for line in copied:
        for source in line.split():
            assert source != ".", "all of the folder, a .env among it, would be in a layer"
            assert (ROOT / source).exists()
    assert not re.search(r"^(ARG|ENV) .*(TOKEN|PASSWORD|SECRET)", text, re.M)
    assert "HEALTHCHECK" in text


@pytest.mark.parametrize("words", [[], ["python"], ["python", "a"], ["else"]])
def test_install_says_how_it_is_called(words: list[str]) -> None:
    done = subprocess.run(["bash", str(CONTAINER / "install.sh"), *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: install.sh" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_install_makes_an_environment_that_works(tmp_path: Path) -> None:
    """The image's own step, in a new virtual environment: every package from the index that pip is configured with."""
    prefix = tmp_path / "archsearch"
    path = f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TORCH_INDEX": ""}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        ["bash", str(CONTAINER / "install.sh"), "python", str(prefix), str(ROOT)], env=environment, check=True
    )
    for words in (["--help"], ["plugins"], ["run", "--help"], ["dashboard", "--help"]):
        subprocess.run([str(prefix / "bin" / "archsearch"), *words], check=True, capture_output=True, cwd=tmp_path)
    for module in ("psycopg", "prometheus_client", "streamlit", "triton", "authlib"):
        subprocess.run([str(prefix / "bin" / "python"), "-c", f"import {module}"], check=True, cwd=tmp_path)
