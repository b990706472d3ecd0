"""``submit``, ``jobs``, ``logs`` and ``stop`` over a fake of Ray's client: what they print and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import Time
from typer.testing import Result

from archsearch.errors import ArchsearchError, ClusterError
from archsearch.jobs import MARK, following, prepare
from archsearch.jobs import cluster as cluster_module
from archsearch.version import __version__

Run = Callable[..., Result]
ADDRESS = ("--address", "http://127.0.0.1:8265")


class Details:
    """One job that stays as it is."""

    job_id, entrypoint = None, "archsearch run search.toml"
    start_time, end_time = 1_700_000_000_000, 1_700_000_042_000

    def __init__(self, status: str, message: str = "", code: int | None = None) -> None:
        self.submission_id, self.metadata = "one", {"archsearch": "quick", "archsearch.owner": "ada"}
        self.status, self.message, self.driver_exit_code = status, message, code


ANSWER: dict[str, Any] = {
    "archsearch": __version__,
    "ray": "2.60.0",
    "python": "3.11.9",
    "host": "head",
    "parts": [],
    "plugins": [],
    "broken": [],
    "database": {"url": "sqlite:////data/a.db", "search": {"state": "cancelled", "reason": "stopped by a signal"}},
    "nodes": [],
    "faults": [],
}


class Client:
    """One job, what it has printed, and what the cluster answers to questions."""

    def __init__(self, job: Details | None) -> None:
        self.job, self.answer, self.pages = job, dict(ANSWER), dict[str, Any]()
        self.started = "RUNNING"

    def submit_job(self, **options: Any) -> str:
        if " question " not in options["entrypoint"]:
            self.job = Details(self.started, "It may be waiting for resources.")
            self.job.submission_id, self.job.metadata = options["submission_id"], options["metadata"]
        return str(options["submission_id"])

    def ask(self, endpoint: str) -> Any:
        return self.pages.get(endpoint)

    def get_job_info(self, job_id: str) -> Details:
        if job_id.startswith("archsearch-question"):
            return Details("SUCCEEDED", code=0)
        assert self.job is not None
        return self.job

    def list_jobs(self) -> list[Details]:
        return [self.job] if self.job else []

    def get_job_logs(self, job_id: str) -> str:
        if job_id.startswith("archsearch-question"):
            return MARK + json.dumps(self.answer)
        return "trial 1 [bold]complete[/bold]\n"

    def stop_job(self, job_id: str) -> bool:
        self.job = Details("STOPPED")
        return True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Client:
    made = Client(None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(cluster_module.Cluster.__init__, "__kwdefaults__", {"connect": lambda address: made})
    time = Time()
    monkeypatch.setattr(
        following.wait_for_start,
        "__kwdefaults__",
        {"seconds": 300.0, "tell": lambda text: None, "clock": time.clock, "sleep": time.sleep},
    )
    return made


@pytest.fixture
def spec(tmp_path: Path, client: Client) -> str:
    """A spec file that the cluster would run."""
    path = tmp_path / "quick.toml"
    path.write_text(
        'name = "quick"\n[model]\nn_layers = 1\n[space]\nmixers = ["full"]\n[[tasks]]\nname = "mqar"\n'
        '[objectives]\nmaximize = ["recall"]\n'
    )
    client.answer["parts"] = [list(part) for part in prepare(path).parts]
    return str(path)


def test_submit_says_what_is_next(run: Run, client: Client, spec: str) -> None:
    result = run("submit", spec, *ADDRESS, "--job-id", "one")
    for text in ("submitted quick as job one: RUNNING", "archsearch logs one", "archsearch stop one"):
        assert text in result.stdout, text
    assert "asking the cluster" in result.stderr
    again = run("submit", spec, *ADDRESS)
    assert "submitted before: quick as job one: RUNNING" in again.stdout
    data = json.loads(run("submit", spec, *ADDRESS, "--json").stdout)
    assert (data["id"], data["status"], data["new"]) == ("one", "RUNNING", False)


def test_a_job_without_room_is_given_up(run: Run, client: Client, spec: str) -> None:
    client.started = "PENDING"
    error = run("submit", spec, *ADDRESS, "--cpus", "64", "--schedule-timeout", "60").exception
    assert isinstance(error, ClusterError)
    assert "has not started in 60 s: it asks for 64 CPUs on one node; the cluster has no node" in str(error)
    assert client.job is not None
    assert client.job.status == "STOPPED"


@pytest.mark.parametrize(("status", "code"), [("FAILED", 1), ("STOPPED", 1), ("SUCCEEDED", 0)])
def test_submit_ends_as_a_job_that_has_ended_by_then(
    run: Run, client: Client, spec: str, status: str, code: int
) -> None:
    client.started = status
    result = run("submit", spec, *ADDRESS, "--job-id", "one", "--json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["status"], data["new"]) == (code, status, True)
    assert (f"job one is {status}" in result.stderr) is bool(code)
    assert "another key" not in result.stderr


@pytest.mark.parametrize(("status", "code"), [("FAILED", 1), ("STOPPED", 1), ("SUCCEEDED", 0), ("RUNNING", 0)])
def test_a_key_of_a_job_that_has_failed_is_told(run: Run, client: Client, spec: str, status: str, code: int) -> None:
    again = ("submit", spec, *ADDRESS, "--key", "mine")
    assert run(*again, "--job-id", "one").exit_code == 0
    assert client.job is not None
    client.job.status, client.job.message = status, "It ended badly."
    result = run(*again)
    assert (result.exit_code, f"submitted before: quick as job one: {status}" in result.stdout) == (code, True)
    told = "one is FAILED: It ended badly." if status == "FAILED" else "one is STOPPED"
    assert (f"{told}; its key names it for good: submit with another key" in result.stderr) is bool(code)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--grow",), "give --resume too"),
        (("--max-hours", "0"), "above 0"),
        (("--until", "soon"), "write a moment"),
        (("--plugin", "./none"), "there is no such file or folder"),
        (("--plugin", "."), "a folder with a pyproject.toml is wanted"),
    ],
)
def test_what_cannot_be_submitted_is_told(
    run: Run, client: Client, spec: str, words: tuple[str, ...], told: str
) -> None:
    error = run("submit", spec, *ADDRESS, *words).exception
    assert isinstance(error, ArchsearchError)
    assert told in str(error)
    assert client.job is None


def test_the_address_may_come_from_rays_variable(run: Run, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    assert "no search was submitted" in run("jobs").stdout


def test_jobs_that_the_cluster_does_not_have_are_listed(run: Run, client: Client, spec: str) -> None:
    run("submit", spec, *ADDRESS, "--job-id", "one")
    client.job = None
    assert " LOST " in run("jobs", *ADDRESS).stdout
    (job,) = json.loads(run("jobs", *ADDRESS, "--json").stdout)["jobs"]
    assert (job["id"], job["status"], job["reason"]) == ("one", "LOST", "the cluster knows it no more")


def test_jobs(run: Run, client: Client) -> None:
    assert "no search was submitted" in run("jobs", *ADDRESS).stdout
    client.job = Details("FAILED", "Job entrypoint command failed with exit code 4, last available logs: x", 4)
    shown = run("jobs", *ADDRESS).stdout
    assert "42 s" in shown
    assert " ada " in shown
    assert "one: Job entrypoint command failed with exit code 4\n" in shown
    (job,) = json.loads(run("jobs", *ADDRESS, "--json").stdout)["jobs"]
    assert (job["id"], job["search"], job["exit_code"]) == ("one", "quick", 4)


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_followed_logs_end_as_the_job_did(run: Run, client: Client, status: str, code: int) -> None:
    client.job = Details(status, "Job failed." if status == "FAILED" else "")
    result = run("logs", "one", *ADDRESS, "--follow")
    assert result.exit_code == code
    assert result.stdout == "trial 1 [bold]complete[/bold]\n"
    assert (f"job one is {status}" in result.stderr) is bool(code)


def test_logs_of_now(run: Run, client: Client) -> None:
    client.job = Details("RUNNING")
    result = run("logs", "one", *ADDRESS)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "trial 1 [bold]complete[/bold]\n", "")
    assert json.loads(run("logs", "one", *ADDRESS, "--json").stdout)["logs"].startswith("trial 1")


def test_logs_cannot_steer_the_terminal(run: Run, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.job = Details("RUNNING")
    monkeypatch.setattr(client, "get_job_logs", lambda job_id: "a\x1b]0;title\x07\tb\u202e\n")
    assert run("logs", "one", *ADDRESS).stdout == "a\\x1b]0;title\\x07\tb\\u202e\n"


def test_stop(run: Run, client: Client) -> None:
    client.job = Details("RUNNING")
    shown = run("stop", "one", *ADDRESS).stdout
    assert "job one: STOPPED\nsearch quick: cancelled: stopped by a signal\n" in shown
    assert "submit SPEC --resume --address" in shown
    client.job = Details("RUNNING")
    client.answer["database"]["search"]["state"] = "interrupted"
    data = json.loads(run("stop", "one", *ADDRESS, "--json").stdout)
    assert data["search_state"]["state"] == "interrupted"
    client.job = Details("RUNNING")
    assert "submit SPEC --resume --wait --address" in run("stop", "one", *ADDRESS).stdout


@pytest.mark.parametrize("words", [("jobs",), ("logs", "one"), ("stop", "one")])
def test_a_wrong_address_is_told(run: Run, words: tuple[str, ...]) -> None:
    error = run(*words, "--address", "ray://127.0.0.1:10001").exception
    assert isinstance(error, ClusterError)
    assert "http://127.0.0.1:8265" in str(error)
    assert run(*words).exit_code == 2
