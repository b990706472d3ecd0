"""Submission: what is sent to a cluster for one search, and what must never be."""

from __future__ import annotations

import secrets
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from archsearch.errors import ClusterError
from archsearch.jobs.cluster import Cluster, Job
from archsearch.jobs.following import STOP_SECONDS
from archsearch.registry import Registry
from archsearch.search import SearchSpec
from archsearch.storage import hide

SPEC_FILE = "search.toml"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A spec file that may travel, and the argument list that runs it on the cluster."""

    spec: Path
    search: str
    arguments: tuple[str, ...]

    @property
    def entrypoint(self) -> str:
        """The argument list as the shell line that Ray wants."""
        return shlex.join(self.arguments)


def prepare(spec: str | Path, registry: Registry, *, storage: str | None = None, resume: bool = False) -> Submission:
    """Checks a spec file against the plugins here and for what cannot or must not reach a cluster.

    Raises `SpecError` for the spec, `ClusterError` for plugins that no package installs and for a database URL
    with a password: arguments and files of a job can be read by everyone who sees the dashboard.
    """
    from archsearch.search import Problem  # its tasks need torch, and nothing else that is asked of a cluster does

    loose = [report.name for report in registry.reports() if report.distribution == "(unpackaged)"]
    if loose:
        raise ClusterError(
            f'plugin "{loose[0]}" was registered in this process only, and workers of a cluster import plugins by '
            "name: put it into a package and install that on every node"
        )
    read = SearchSpec.load(spec)
    Problem.of(read, registry)
    for url, where in ((storage, "--storage"), (read.storage.url, "[storage] of the spec")):
        if url is not None and hide(url) != url:
            raise ClusterError(
                f"the database URL in {where} has a password ({hide(url)}), which everyone who sees the cluster's "
                "dashboard could read: take it out and set ARCHSEARCH_STORAGE on the cluster"
            )
    arguments = ["archsearch", "run", SPEC_FILE, "--address", "auto"]
    if resume:
        arguments.append("--resume")
    if storage is not None:
        arguments += ["--storage", storage]
    return Submission(spec=Path(spec), search=read.name, arguments=tuple(arguments))


def submit(cluster: Cluster, submission: Submission, *, job_id: str | None = None, cpus: float = 0.0) -> Job:
    """Sends the spec in a folder of its own and starts the search; returns the job, which may be pending.

    The only variables that are set are those by which Ray stops the job: as Ctrl-C does, and with time to end.
    """
    job_id = job_id or f"{submission.search}-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix="archsearch-") as folder:
        shutil.copyfile(submission.spec, Path(folder) / SPEC_FILE)
        runtime_env = {
            "working_dir": folder,
            "env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
        }
        cluster.submit(job_id, submission.entrypoint, search=submission.search, runtime_env=runtime_env, cpus=cpus)
    return cluster.job(job_id)
