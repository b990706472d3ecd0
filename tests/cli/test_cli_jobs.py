"""``submit``, ``jobs``, ``logs`` and ``stop`` over a fake of Ray's client: what they print and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from archsearch.errors import ClusterError
from archsearch.jobs import cluster as cluster_module
from archsearch.jobs import following

Run = Callable[..., Result]
ADDRESS = ("--address", "http://127.0.0.1:8265")


class Details:
    """One job that stays as it is."""

    submission_id, job_id, entrypoint, metadata = "one", None, "archsearch run search.toml", {"archsearch": "quick"}
    start_time, end_time = 1_700_000_000_000, 1_700_000_042_000

    def __init__(self, status: str, message: str = "", code: int | None = None) -> None:
        self.status, self.message, self.driver_exit_code = status, message, code


class Client:
    """One job, and what it has printed."""

    def __init__(self, job: Details | None) -> None:
        self.job = job

    def submit_job(self, **options: Any) -> str:
        self.job = Details("PENDING", "It may be waiting for resources.")
        return str(options["submission_id"])

    def get_job_info(self, job_id: str) -> Details:
        assert self.job is not None
        return self.job

    def list_jobs(self) -> list[Details]:
        return [self.job] if self.job else []

    def get_job_logs(self, job_id: str) -> str:
        return "trial 1 [bold]complete[/bold]\n"

    def stop_job(self, job_id: str) -> bool:
        self.job = Details("STOPPED")
        return True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client(None)
    monkeypatch.setattr(cluster_module.Cluster.__init__, "__kwdefaults__", {"connect": lambda address: made})
    monkeypatch.setattr(
        following.wait_for_start,
        "__kwdefaults__",
        {
            "seconds": 0.0,
            "clock": lambda: 0.0,
            "sleep": lambda seconds: None,
        },
    )
    return made


def test_submit_says_why_a_job_waits_and_what_is_next(run: Run, client: Client, tmp_path: Path) -> None:
    spec = tmp_path / "quick.toml"
    spec.write_text(
        'name = "quick"\n[model]\nn_layers = 1\n[space]\nmixers = ["full"]\n[[tasks]]\nname = "mqar"\n'
        '[objectives]\nmaximize = ["recall"]\n'
    )
    shown = run("submit", str(spec), *ADDRESS, "--job-id", "one").stdout
    for text in (
        "submitted quick as job one: PENDING",
        "no node of the cluster has room",
        "archsearch logs one",
        "archsearch stop one",
    ):
        assert text in shown, text
    data = json.loads(run("submit", str(spec), *ADDRESS, "--json").stdout)
    assert (data["id"], data["status"]) == ("one", "PENDING")


def test_jobs(run: Run, client: Client) -> None:
    assert "no search was submitted" in run("jobs", *ADDRESS).stdout
    client.job = Details("FAILED", "Job entrypoint command failed with exit code 4, last available logs: x", 4)
    shown = run("jobs", *ADDRESS).stdout
    assert "42 s" in shown
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
    assert "job one: STOPPED" in shown
    assert "--resume" in shown


@pytest.mark.parametrize("words", [("jobs",), ("logs", "one"), ("stop", "one")])
def test_a_wrong_address_is_told(run: Run, words: tuple[str, ...]) -> None:
    error = run(*words, "--address", "ray://127.0.0.1:10001").exception
    assert isinstance(error, ClusterError)
    assert "http://127.0.0.1:8265" in str(error)
    assert run(*words).exit_code == 2
