"""Submission: what is sent to a cluster for one search, what must never be, and how it is sent once."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from archsearch.arch import digest_of
from archsearch.errors import ClusterError, PluginError, UnknownNameError
from archsearch.jobs.address import is_loopback
from archsearch.jobs.asking import Part, ask, refuse
from archsearch.jobs.cluster import (
    ASKS_KEY,
    KEY_KEY,
    OWNER_KEY,
    SEARCH_KEY,
    Cluster,
    Job,
    JobExistsError,
    UnreachableError,
    asks,
)
from archsearch.jobs.following import STOP_SECONDS, Tell
from archsearch.jobs.plugins import Plugins
from archsearch.jobs.question import Question
from archsearch.jobs.ray_version import check_ray
from archsearch.jobs.requirements import missing
from archsearch.jobs.rows import Rows
from archsearch.registry import UNPACKAGED, load_registry
from archsearch.search import SearchSpec
from archsearch.storage import hide, owner_here
from archsearch.storage.jobs import NewJob
from archsearch.storage.owner import VARIABLE as OWNER_VARIABLE
from archsearch.storage.scraps import scratch
from archsearch.version import __version__

SPEC_FILE, QUESTION_FILE = "search.toml", "question.json"


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How a search is to run there: what it is allowed when it goes on, when it ends, and what its own process asks
    of one node. ``limit`` are the options of a time limit, ``yes`` begins a ladder above the limits of its cost."""

    storage: str | None = None
    resume: bool = False
    grow: bool = False
    wait: bool = False
    retrain: bool = False
    yes: bool = False
    limit: tuple[str, ...] = ()
    cpus: float = 0.0
    gpus: float = 0.0

    @property
    def arguments(self) -> list[str]:
        """The options of `archsearch run` that say so."""
        named = {"--resume": self.resume, "--grow": self.grow, "--wait": self.wait, "--retrain": self.retrain}
        named["--yes"] = self.yes
        words = [*(name for name, given in named.items() if given), *self.limit]
        return words if self.storage is None else [*words, "--storage", self.storage]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A spec file that may travel, the plugins that go with it, and how the search is to run."""

    spec: Path
    read: SearchSpec
    parts: tuple[Part, ...] = ()
    plugins: Plugins = field(default_factory=Plugins)
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def search(self) -> str:
        """The name of the search."""
        return self.read.name

    @property
    def command(self) -> tuple[str, ...]:
        """How archsearch is called there: with pip Ray makes an environment of its own, whose Python it is then."""
        return ("python", "-m", "archsearch.cli") if self.plugins.pip else ("archsearch",)

    @property
    def entrypoint(self) -> str:
        """What runs the search, as the shell line that Ray wants."""
        return shlex.join([*self.command, "run", SPEC_FILE, "--address", "auto", *self.wishes.arguments])

    @property
    def question(self) -> Question:
        """Whether it would run there."""
        from archsearch.storage.spec_keys import GROWING

        wishes = self.wishes
        return Question(
            spec=SPEC_FILE,
            storage=wishes.storage,
            resume=wishes.resume,
            allowed=GROWING if wishes.grow else (),
            wait=wishes.wait,
            retrain=wishes.retrain,
            cpus=wishes.cpus,
            gpus=wishes.gpus,
            wants=self.plugins.requires,
            installs=bool(self.plugins.pip),
        )

    def key(self, address: str) -> str:
        """The same for the same submission to the same address."""
        wishes = self.wishes
        asked = [*wishes.arguments, f"{wishes.cpus:g}", f"{wishes.gpus:g}"]
        return digest_of([self.read.to_json(), address, asked, self.plugins.to_json()])[:32]


def prepare(spec: str | Path, *, plugins: Plugins | None = None, wishes: Wishes | None = None) -> Submission:
    """Checks a spec file against the plugins here and for what cannot or must not reach a cluster.

    Raises `SpecError` for the spec, `ClusterError` for plugins that no package installs and for a database URL
    with a password: arguments and files of a job can be read by everyone who sees the dashboard.
    """
    plugins, wishes = plugins or Plugins(), wishes or Wishes()
    read = SearchSpec.load(spec)
    for url, where in ((wishes.storage, "--storage"), (read.storage.url, "[storage] of the spec")):
        if url is not None and hide(url) != url:
            raise ClusterError(
                f"the database URL in {where} has a password ({hide(url)}), which everyone who sees the cluster's "
                "dashboard could read: take it out, and on the cluster set ARCHSEARCH_STORAGE_FILE to a file that "
                "holds the URL"
            )
    return Submission(spec=Path(spec), read=read, parts=_parts(read, plugins), plugins=plugins, wishes=wishes)


def _parts(read: SearchSpec, plugins: Plugins) -> tuple[Part, ...]:
    """What results would be made of, by the plugins that are installed here and those that travel; empty where the
    cluster installs some that are not known here, or what they need and this machine lacks."""
    from archsearch.search import Problem  # its tasks need torch, and nothing else that is asked of a cluster does

    with _importable(plugins):
        registry = load_registry()
        loose = [report.name for report in registry.reports() if report.distribution == UNPACKAGED]
        if loose:
            raise ClusterError(
                f'plugin "{loose[0]}" was registered in this process only, and workers of a cluster import plugins by '
                "name: put it into a package and send that with --plugin FOLDER"
            )
        for wheel in plugins.wheels:
            if not any(report.distribution == wheel.name for report in registry.reports()):
                raise PluginError(
                    f'the package "{wheel.name}" names no plugin: its pyproject.toml needs an entry point in the group '
                    '"archsearch"'
                )
        try:
            parts = Problem.of(read, registry).parts()
        except UnknownNameError as error:
            if not plugins.requirements and not missing(plugins.requires):
                raise UnknownNameError(
                    f"{error}; --plugin FOLDER or REQUIREMENT names a plugin that goes along"
                ) from None
            return ()
    return tuple((part.name, part.version, part.digest) for part in parts)


@contextmanager
def _importable(plugins: Plugins) -> Iterator[None]:
    """Inside, the wheels that travel are imported as they will be on the cluster, before what is installed here."""
    if not plugins.wheels:
        yield
        return
    with scratch("plugins") as folder:
        plugins.unpack(folder)
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            sys.path.remove(str(folder))


def check_open(cluster: Cluster, *, insecure: bool) -> None:
    """Raises `ClusterError` for a cluster that others reach and that asks nobody for a token, unless told."""
    if insecure or is_loopback(cluster.address) or cluster.authenticates():
        return
    raise ClusterError(
        f"{cluster.address} asks nobody for a token: whoever reaches that port runs code on the cluster as its user, "
        "and reads its database. Start Ray there with RAY_AUTH_MODE=token, or reach it through an SSH tunnel; "
        "--insecure submits all the same"
    )


def submit(
    cluster: Cluster,
    submission: Submission,
    rows: Rows,
    *,
    job_id: str | None = None,
    key: str | None = None,
    tell: Tell = lambda text: None,
    insecure: bool = False,
) -> tuple[Job, bool]:
    """The job of this submission, and whether it is new. Before it is sent, the cluster is asked whether it would run.

    A submission of the same `key` (by default a digest of what is sent and where) is the same job, whoever sends it and
    however often, until it failed or was stopped; with a `key` that was given, for good. A cluster whose jobs can read
    the database's password in their environment is refused, unless `insecure`.
    """
    used = key or submission.key(cluster.address)
    found, number = _earlier(cluster, rows, used, given=key is not None)
    if found is not None:
        return found, False
    check_ray(cluster, tell)
    name = job_id or rows.name_for(used, f"{submission.search}-{digest_of([used])[:6]}", number)
    with ExitStack() as folders:
        runtime_env = folders.enter_context(_packed(submission))
        answer = _answered(cluster, submission, runtime_env, tell)
        if answer.get("lacking") and answer["archsearch"] == __version__:
            tell(
                f"the cluster lacks {', '.join(answer['lacking'])}: Ray has pip install it there, for this job alone, "
                "which may take minutes"
            )
            submission = replace(submission, plugins=submission.plugins.installing(answer["lacking"]))
            runtime_env = folders.enter_context(_packed(submission))
            answer = _answered(cluster, submission, runtime_env, tell)
        refuse(answer, submission.parts, tell, insecure=insecure)
        rows.begin(_row(submission, cluster.address, name, used))
        try:
            _send(cluster, submission, name, used, runtime_env)
        except JobExistsError:
            job = cluster.job(name)
            if job.key != used:
                rows.note(name, "failed", "the cluster has another job of that id")
                raise
            return job, False
        except UnreachableError as error:
            raise UnreachableError(
                f"{error} Whether the job {name} has arrived is not known: the same command finds out, and makes no "
                "second one"
            ) from None
    job = cluster.job(name)
    rows.heard(job)
    return job, True


def _answered(cluster: Cluster, submission: Submission, runtime_env: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """What the cluster says to the question whether the search would run there."""
    command = shlex.join([*submission.command, "question", QUESTION_FILE])
    return ask(cluster, command, runtime_env, tell=tell, installs=submission.question.installs)


def _earlier(cluster: Cluster, rows: Rows, key: str, *, given: bool) -> tuple[Job | None, int]:
    """The job of this key that counts, and how many that do not came before it: those that failed or were stopped, and
    those that the cluster has lost."""
    jobs = [job for job in cluster.jobs() if job.key == key]
    rows.free_lost(cluster.address, key, [job.id for job in jobs], given=given)
    over = [] if given else [job for job in jobs if job.status in ("FAILED", "STOPPED")]
    for job in over:
        rows.heard(job)
        rows.free(job.id)
    counting = [job for job in jobs if job not in over]
    return (counting[0] if counting else None), len(over)


def _row(submission: Submission, address: str, name: str, key: str) -> NewJob:
    return NewJob(
        name=name,
        key=key,
        search=submission.search,
        address=address,
        owner=owner_here(),
        spec=submission.read.to_json(),
        plugins=submission.plugins.to_json(),
    )


def _send(cluster: Cluster, submission: Submission, name: str, key: str, runtime_env: Mapping[str, Any]) -> None:
    wishes = submission.wishes
    metadata = {SEARCH_KEY: submission.search, KEY_KEY: key, OWNER_KEY: owner_here() or ""}
    asked = asks(wishes.cpus, wishes.gpus)
    cluster.submit(
        name,
        submission.entrypoint,
        metadata={**metadata, ASKS_KEY: asked} if asked else metadata,
        runtime_env=runtime_env,
        cpus=wishes.cpus,
        gpus=wishes.gpus,
    )


@contextmanager
def _packed(submission: Submission) -> Iterator[dict[str, Any]]:
    """The environment of the job: its folder, and nothing of this process's variables.

    The only variables that are set say who submits, and how Ray stops the job: as Ctrl-C does, and with time to end.
    """
    with scratch("job") as folder:
        submission.plugins.unpack(folder)
        shutil.copyfile(submission.spec, folder / SPEC_FILE)
        (folder / QUESTION_FILE).write_text(submission.question.to_text(), encoding="utf-8")
        yield environment(folder, submission.plugins.pip)


def environment(folder: Path, pip: Sequence[str] = ()) -> dict[str, Any]:
    """Ray's ``runtime_env`` of a job in `folder`, the same for its workers; `pip` is what is installed for it."""
    variables = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    submitter = owner_here()
    runtime_env: dict[str, Any] = {
        "working_dir": str(folder),
        "env_vars": variables if submitter is None else {**variables, OWNER_VARIABLE: submitter},
    }
    if pip:
        runtime_env["pip"] = list(pip)
    return runtime_env


def put(cluster: Cluster, question: Question, tell: Tell) -> dict[str, Any]:
    """What the cluster says to a question that is about no spec."""
    with scratch("question") as folder:
        (folder / QUESTION_FILE).write_text(question.to_text(), encoding="utf-8")
        return ask(cluster, shlex.join(["archsearch", "question", QUESTION_FILE]), environment(folder), tell=tell)
