"""A real Ray head that listens on this machine, with a token, and whose files lie in a folder of its own."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ports import free_ports

BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where it listens, its folder, and the variables by which its clients are known to it."""

    address: str
    folder: Path
    client: dict[str, str]

    def archsearch(self, *words: str, code: int = 0, **variables: str) -> str:
        """What the command line prints on both streams."""
        environment = {**os.environ, **self.client, **variables}
        environment.pop("ARCHSEARCH_STORAGE", None)
        done = subprocess.run(
            [sys.executable, "-m", "archsearch.cli", *words, "--address", self.address],
            capture_output=True,
            text=True,
            timeout=600,
            env=environment,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def processes(self) -> list[int]:
        """Processes whose command line or environment names the folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                text = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if str(self.folder).encode() in text and int(process.name) != os.getpid():
                found.append(int(process.name))
        return found


@contextmanager
def ray_head(*, cpus: int = 2, **variables: str) -> Iterator[Head]:
    """A head with `variables` in the environment of its processes, which ends with them all."""
    port, dashboard, client, agent, grpc, metrics = free_ports(6)
    with tempfile.TemporaryDirectory(prefix="ar-", dir="/tmp") as named:
        folder = Path(named)
        for name in ("tmp", "bin", "state"):
            (folder / name).mkdir()
        _script(folder / "bin" / "archsearch")
        token = folder / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        shared = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ARCHSEARCH_")},
            **shared,
            **variables,
            "PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}",
            "TMPDIR": str(folder / "tmp"),
            "HOME": str(folder),
        }
        head = Head(
            address=f"http://127.0.0.1:{dashboard}",
            folder=folder,
            client={**shared, "XDG_STATE_HOME": str(folder / "state"), "HOME": str(folder)},
        )
        try:
            subprocess.run(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--node-ip-address=127.0.0.1"),
                    *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                    *(f"--port={port}", f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
                    *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"),
                    *(f"--num-cpus={cpus}", "--object-store-memory=100000000", "--disable-usage-stats"),
                    f"--temp-dir={folder}/ray",
                ],
                env=environment,
                check=True,
                capture_output=True,
                timeout=300,
            )
            yield head
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                for process in head.processes():
                    try:
                        os.kill(process, number)
                    except ProcessLookupError:
                        continue
                time.sleep(2)


def _script(path: Path) -> None:
    """The command as an installation has it, for this interpreter."""
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m archsearch.cli "$@"\n')
    path.chmod(0o755)
