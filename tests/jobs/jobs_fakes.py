"""A fake of Ray's job client: jobs that go through given statuses and print given logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from archsearch.jobs import MARK
from archsearch.version import __version__

SPEC = """
name = "quick"
[model]
d_model = 32
n_layers = 2
[space]
mixers = ["full", "sliding"]
[[tasks]]
name = "mqar"
setting = "easy"
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
"""


def good_answer(parts: Sequence[Sequence[str]], /, **changes: Any) -> dict[str, Any]:
    """What a cluster of one node says on which a search of these parts would run."""
    node = {
        "host": "head",
        "cpus": 2.0,
        "gpus": 0.0,
        "archsearch": __version__,
        "parts": [list(part) for part in parts],
    }
    told = {
        "archsearch": __version__,
        "ray": ray.__version__,
        "python": "3.11.9",
        "host": "head",
        "clock": 1_700_000_000.0,
        "parts": [list(part) for part in parts],
        "broken": [],
        "database": {"url": "sqlite:////data/a.db", "search": None},
        "nodes": [node],
        "faults": [],
    }
    return {**told, **changes}


@dataclass
class Details:
    """What Ray tells of a job."""

    submission_id: str
    status: str = "PENDING"
    message: str = "Job has not started yet."
    entrypoint: str = "archsearch run search.toml"
    metadata: dict[str, str] | None = None
    job_id: str | None = None
    driver_exit_code: int | None = None
    start_time: int | None = 1_700_000_000_000
    end_time: int | None = None


@dataclass
class FakeClient:
    """Jobs by id; each look at a job takes the next of its script of (status, logs, exit code)."""

    jobs: dict[str, Details] = field(default_factory=dict)
    scripts: dict[str, list[tuple[str, str, int | None]]] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    failures: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    questions: dict[str, Details] = field(default_factory=dict)
    pages: dict[str, Any] = field(default_factory=dict)
    lose: bool = False
    """Whether the answer to the next job is lost, which the cluster has all the same."""

    def ask(self, endpoint: str) -> Any:
        return self.pages.get(endpoint)

    def submit_job(self, **options: Any) -> str:
        job_id = options["submission_id"]
        if " question " in options["entrypoint"]:
            self.questions[job_id] = Details(job_id, status="SUCCEEDED", driver_exit_code=0)
            self.printed[job_id] = f"noise\n{MARK}{json.dumps(self.answer)}\n"
            return str(job_id)
        if job_id in self.jobs:
            raise RuntimeError(
                "Request failed with status code 500: Traceback (most recent call last):\n  File x\n"
                f"ValueError: Job with submission_id {job_id} already exists. Please use a different submission_id.\n."
            )
        folder = Path(options["runtime_env"]["working_dir"])
        paths = [path for path in folder.rglob("*") if path.is_file()]
        self.files = {str(path.relative_to(folder)): path.read_text(errors="replace") for path in paths}
        self.sent.append(options)
        self.jobs[job_id] = Details(job_id, metadata=options["metadata"], entrypoint=options["entrypoint"])
        if self.lose:
            self.lose = False
            raise ConnectionError("Read timed out.")
        return str(job_id)

    def get_job_info(self, job_id: str) -> Details:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("Failed to connect to Ray at address: http://127.0.0.1:8265.")
        if job_id in self.questions:
            return self.questions[job_id]
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        job = self.jobs[job_id]
        script = self.scripts.get(job_id)
        if script:
            job.status, logs, job.driver_exit_code = script.pop(0)
            self.printed[job_id] = self.printed.get(job_id, "") + logs
        return job

    def list_jobs(self) -> list[Details]:
        return list(self.jobs.values())

    def get_job_logs(self, job_id: str) -> str:
        if job_id not in self.jobs and job_id not in self.questions:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        return self.printed.get(job_id, "")

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True

    def script(self, job_id: str, *looks: tuple[str, str] | tuple[str, str, int | None]) -> None:
        """The statuses and further logs of a job, look by look; the last stays."""
        self.jobs.setdefault(job_id, Details(job_id, metadata={"archsearch": "quick"}))
        self.scripts[job_id] = [(*look, None)[:3] for look in looks]  # type: ignore[misc]
