"""A Ray cluster of two machines on one: two network namespaces joined by a link that can be cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_SECONDS = 300.0
_QUICK = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "240",
}
"""A head that gives up a machine after a quarter of a minute; 5 failures in a row, as by default."""


def why_not() -> str:
    """Why no such cluster can be made here, "" where it can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    if missing:
        return f"{missing[0]} is not installed"
    name = f"archsearch-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"`ip netns add` is not permitted: {tried.stderr.strip()}"
    tried = subprocess.run(
        ["ip", "netns", "exec", name, "unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    _ip("netns", "del", name)
    return f"`unshare` is not permitted: {tried.stderr.strip()}" if tried.returncode else ""


class TwoNodes:
    """The head, "near", where drivers run, and one more machine, "far"; each trains one trial at a time."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        environ |= {"RAY_AUTH_MODE": "disabled"}  # nobody else reaches these namespaces
        self._folder, self._environ = folder, environ | _QUICK
        self._near, self._far = (f"archsearch-{os.getpid()}-{name}" for name in ("near", "far"))
        self._links = [f"as{os.getpid() % 10**7}{end}" for end in "nf"]
        self._net = f"10.213.{os.getpid() % 250}"
        self._closing = threading.Event()
        self._running: list[subprocess.Popen[bytes]] = []
        self.address = f"{self._net}.1:6379"

    def start(self) -> None:
        """Both machines; the far one is started again whenever its Ray ends, as a supervisor would."""
        for name in (self._near, self._far):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        near, far = self._links
        _ip("link", "add", near, "netns", self._near, "type", "veth", "peer", "name", far, "netns", self._far)
        for name, link, last in ((self._near, near, 1), (self._far, far, 2)):
            _ip("-n", name, "addr", "add", f"{self._net}.{last}/24", "dev", link)
            _ip("-n", name, "link", "set", link, "up")
            _ip("-n", name, "route", "add", "default", "dev", link)  # by its route Ray finds a machine's own address
        head = f"start --head --port=6379 --node-ip-address={self._net}.1 --include-dashboard=false"
        self._ray("near", self._near, f"{head} --num-cpus=1 --object-store-memory=80000000 --temp-dir={self._folder}")
        self.wait_for("near")
        threading.Thread(target=self._supervise, name="supervisor", daemon=True).start()
        self.wait_for("far")

    def _supervise(self) -> None:
        joined = f"start --address={self.address} --node-ip-address={self._net}.2"
        while not self._closing.is_set():
            process = self._ray("far", self._far, f"{joined} --num-cpus=1 --object-store-memory=80000000")
            process.wait()
            self._closing.wait(2.0)

    def _ray(self, host: str, namespace: str, command: str) -> subprocess.Popen[bytes]:
        """A machine of its own host's name, whose processes end with the one that is returned."""
        inside = f"hostname {host}; exec {sys.executable} -P -m ray.scripts.scripts {command} --block"
        shut = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inside]
        with (self._folder / f"{host}.log").open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *shut], env=self._environ, stdout=log, stderr=log
            )
        self._running.append(process)
        return process

    def wait_for(self, host: str, starts: int = 1) -> None:
        """Until the machine's Ray has started, for the time that is given; its port answers before that."""
        log, until = self._folder / f"{host}.log", time.monotonic() + START_SECONDS
        while not log.exists() or log.read_text(errors="replace").count("Ray runtime started") < starts:
            assert self._running[0].poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < until, f"{host} does not start"
            time.sleep(0.5)

    def on_near(self, *words: str) -> list[str]:
        """A command as it is run on the head's machine."""
        return ["ip", "netns", "exec", self._near, *words]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """The link is cut inside."""
        _ip("-n", self._near, "link", "set", self._links[0], "down")
        try:
            yield
        finally:
            _ip("-n", self._near, "link", "set", self._links[0], "up")

    def close(self) -> None:
        """Ends both machines."""
        self._closing.set()
        for process in self._running:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for name in (self._near, self._far):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
