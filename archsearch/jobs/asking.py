"""Asking: a cluster says by a small job whether a search would run there, before anything of it is sent."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from archsearch.errors import ArchsearchError, ClusterError, SpecError, StorageError
from archsearch.jobs.cluster import Cluster, Job
from archsearch.jobs.following import Clock, Sleep, Tell
from archsearch.jobs.open_secrets import laid_open
from archsearch.jobs.question import INSTALL_SECONDS, MARK
from archsearch.version import __version__

ASK_SECONDS = 180.0
"""How long a cluster may take to answer: a job is started, and torch imported on each node."""
_POLL_SECONDS = 0.5
_ERRORS: Mapping[int, type[ArchsearchError]] = {2: SpecError, 4: StorageError}
_PIP_REFUSED = re.compile(r"^\s*ERROR: (.+)$", re.MULTILINE)
"""As pip says what it could not install, in what Ray tells of a job that has no environment."""
Part = tuple[str, str, str]
"""Name, version and digest."""


def ask(
    cluster: Cluster,
    command: str,
    runtime_env: Mapping[str, Any],
    *,
    tell: Tell,
    installs: bool = False,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> dict[str, Any]:
    """The answer to the question that lies in the job's folder; `command` is the shell line that answers it. It is
    waited for longer where pip `installs` something first.

    Raises `ClusterError` where no answer comes, with what the cluster said instead.
    """
    name = f"archsearch-question-{secrets.token_hex(4)}"
    seconds = ASK_SECONDS + (INSTALL_SECONDS if installs else 0.0)
    tell(f"asking the cluster what it has, at most {seconds:.0f} s")
    cluster.submit(name, command, metadata={}, runtime_env=runtime_env)
    deadline = clock() + seconds
    job = cluster.job(name)
    while not job.finished and clock() < deadline:
        sleep(_POLL_SECONDS)
        job = cluster.job(name)
    if not job.finished:
        cluster.request_stop(name)
        raise ClusterError(
            f"the cluster did not answer in {seconds:.0f} s (job {name} is {job.status}): its head node is busy, "
            "or the plugins take long to install: look at `ray status` there, and try again"
        )
    return _read(job, cluster.logs(name))


def _read(job: Job, logs: str) -> dict[str, Any]:
    for line in logs.splitlines():
        if line.startswith(MARK):
            try:
                found = json.loads(line.removeprefix(MARK))
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    if job.exit_code == 2 and "No such command" in logs:
        raise ClusterError(
            f"the cluster's archsearch is older than this one ({__version__}) and cannot be asked: install the same on "
            "every node"
        )
    lines = [line.strip() for line in logs.splitlines() if line.strip()]
    said = job.reason or (lines[-1] if lines else "no word of why")
    if job.exit_code not in (None, 0, 127) and lines:
        said = lines[-1]
    refused = _PIP_REFUSED.findall(job.message)
    if refused:
        raise ClusterError(
            f"pip on the cluster: {refused[-1].strip()}: start Ray there with an index that has it (PIP_INDEX_URL, or "
            "PIP_FIND_LINKS for a folder of wheels), or install it on every node"
        )
    raise ClusterError(f"the cluster could not say what it has: {said}")


def refuse(answer: Mapping[str, Any], parts: Sequence[Part], tell: Tell, *, insecure: bool = False) -> None:
    """Raises what would end the search, or lay its database open, in the first sentence that helps; what would not is
    told. With `insecure` an open database is told alone.

    ``parts`` are what the results would be made of here, empty where that is not known.
    """
    if answer["archsearch"] != __version__:
        raise ClusterError(
            f"the cluster has archsearch {answer['archsearch']} and this is {__version__}: install the same on both"
        )
    secret = laid_open(answer)
    if secret and not insecure:
        raise ClusterError(f"{secret}; --insecure submits all the same")
    if answer.get("lacking"):
        raise ClusterError(
            f"the cluster lacks {', '.join(answer['lacking'])}, which a plugin that goes along asks for, and pip did "
            "not install it there: install it on every node"
        )
    for code, text in answer["faults"]:
        raise _ERRORS.get(code, ClusterError)(f"on the cluster: {text}{_broken(answer)}")
    there = [_part(one) for one in answer["parts"]]
    _compare("this machine", parts, "the cluster", there, tell, core=False)
    for node in answer["nodes"]:
        _check_node(node, there, tell)
    if secret:
        tell(secret)


def _broken(answer: Mapping[str, Any]) -> str:
    broken = [f"{name} {version} ({' '.join(str(error).split())})" for name, version, error in answer["broken"]]
    return f"; plugins that cannot be used there: {'; '.join(broken)}" if broken else ""


def _check_node(node: Mapping[str, Any], driver: Sequence[Part], tell: Tell) -> None:
    host = f"node {node['host']}"
    if "silent" in node:
        tell(f"{host} could not be asked: {node['silent']}")
    elif "fault" in node:
        raise ClusterError(f"{host}: {node['fault']}: install archsearch {__version__} there")
    else:
        _compare("the head node", driver, host, [_part(one) for one in node["parts"]], tell)


def _compare(
    first: str, ours: Sequence[Part], second: str, theirs: Sequence[Part], tell: Tell, *, core: bool = True
) -> None:
    """Raises `ClusterError` with both lists where the parts differ; of the core a difference is told alone where
    nothing is trained by it (not `core`)."""
    known = {name: made for name, *made in theirs}
    differ = [part for part in ours if known.get(part[0]) != list(part[1:])]
    if not core and any(name == "core" for name, *_ in differ):
        differ = [part for part in differ if part[0] != "core"]
        tell(f"{first} has another source of archsearch {__version__} than {second}, which is the one that counts")
    if differ:
        here = "; ".join(" ".join(part) for part in differ)
        there = "; ".join(" ".join([part[0], *known.get(part[0], ["(none)"])]) for part in differ)
        raise ClusterError(
            f"plugins differ: {first} has {here}; {second} has {there}: install the same source on both, or send it "
            "along with --plugin FOLDER"
        )


def _part(one: Sequence[Any]) -> Part:
    name, version, digest = map(str, one)
    return name, version, digest
