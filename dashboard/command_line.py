"""The command line: what must reach a cluster goes through ``archsearch`` in a process of its own.

So the pages' process loads neither torch nor Ray, and the token of the cluster is read by the command, on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from archsearch.errors import ArchsearchError
from archsearch.storage.scraps import scratch

SUBMIT_TO = "ARCHSEARCH_SUBMIT_TO"
"""The cluster that searches may be sent to; without it nothing is sent. `archsearch dashboard` sets it."""
SUBMIT_STORAGE = "ARCHSEARCH_SUBMIT_STORAGE"
"""The database that commands note jobs in, where the pages' own may only be read."""
OWNER = "ARCHSEARCH_OWNER"
"""Whose searches those are that a command sends."""
ASK_SECONDS, SEND_SECONDS = 60.0, 540.0
"""For a question, and for what waits for a job to start or to stop."""
_START = (sys.executable, "-P", "-c", "from archsearch.cli import main; main()")


def cluster() -> str:
    """The URL of the cluster, or "" where nothing may be sent."""
    return os.environ.get(SUBMIT_TO, "")


def survey(toml: str) -> dict[str, Any]:
    """What a search of that spec would be, as ``archsearch survey --json`` says it; raises `ArchsearchError`."""
    with _spec_file(toml) as path:
        return ask(["survey", path, "--json"], SEND_SECONDS)


def submit(toml: str, key: str, owner: str = "") -> dict[str, Any]:
    """Sends a spec and returns the job; one `key` is one job. The search is the `owner`'s, else this process's."""
    with _spec_file(toml) as path:
        words = ["submit", path, "--address", cluster(), "--json", "--key", key]
        return ask(words, SEND_SECONDS, writes=True, owner=owner)


def jobs() -> list[dict[str, Any]]:
    """The jobs of the cluster, the newest first."""
    listed = ask(["jobs", "--address", cluster(), "--json"], writes=True).get("jobs")
    return [job for job in listed if isinstance(job, dict)] if isinstance(listed, list) else []


def logs(job: str) -> str:
    """All that a job has printed."""
    return str(ask(["logs", "--address", cluster(), "--json", "--", job]).get("logs") or "")


def stop(job: str) -> dict[str, Any]:
    """Stops a job, waits until it has ended, and returns it."""
    return ask(["stop", "--address", cluster(), "--json", "--", job], SEND_SECONDS, writes=True)


def ask(words: Sequence[str], seconds: float = ASK_SECONDS, *, writes: bool = False, owner: str = "") -> dict[str, Any]:
    """The JSON that a command prints.

    Raises `ArchsearchError` with the command's own sentence where it fails, and for one that does not end in time.
    """
    environment = {**os.environ, OWNER: owner} if owner else dict(os.environ)
    if writes and os.environ.get(SUBMIT_STORAGE):
        environment["ARCHSEARCH_STORAGE"] = os.environ[SUBMIT_STORAGE]
    done = _run(words, seconds, environment)
    if done.returncode:
        raise ArchsearchError(_sentence(done.stderr) or f"`archsearch {words[0]}` ended with {done.returncode}")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ArchsearchError(f"`archsearch {words[0]}` printed no answer that can be read: see the dashboard's log")
    return found


def _run(words: Sequence[str], seconds: float, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command; one that does not end in `seconds` is ended with all that it started."""
    with subprocess.Popen(
        [*_START, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, "ARCHSEARCH_DEBUG": ""},
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, told = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ArchsearchError(
                f"`archsearch {words[0]}` gave no answer in {seconds:.0f} s: is the cluster at {cluster()} alive? "
                "What was asked may still be done: look at the list of jobs"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(list(words), process.returncode, out, told)


def _sentence(told: str) -> str:
    """The error that a command told: what follows the last "error: ", else its last line."""
    _, found, error = told.rpartition("error: ")
    lines = [line.strip() for line in (error if found else told).splitlines() if line.strip()]
    return " ".join(lines) if found else lines[-1] if lines else ""


@contextlib.contextmanager
def _spec_file(toml: str) -> Any:
    with scratch("draft") as folder:
        path = folder / "search.toml"
        path.write_text(toml, encoding="utf-8")
        yield str(path)
