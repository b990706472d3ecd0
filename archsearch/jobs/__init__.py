"""Jobs: submit, follow and stop a search on a Ray cluster (the only code of the Ray Jobs API)."""

from __future__ import annotations

from archsearch.jobs.address import is_loopback
from archsearch.jobs.asking import ask, refuse
from archsearch.jobs.cluster import Cluster, Job, Node
from archsearch.jobs.following import NotScheduledError, follow, stop, wait_for_start
from archsearch.jobs.listeners import is_open
from archsearch.jobs.open_secrets import laid_open
from archsearch.jobs.plugins import Plugins, packed
from archsearch.jobs.question import MARK, Question, answer
from archsearch.jobs.ray_version import RayVersions
from archsearch.jobs.rows import Rows, open_rows
from archsearch.jobs.submission import Submission, Wishes, check_open, prepare, put, submit

__all__ = [
    "MARK",
    "Cluster",
    "Job",
    "Node",
    "NotScheduledError",
    "Plugins",
    "Question",
    "RayVersions",
    "Rows",
    "Submission",
    "Wishes",
    "answer",
    "ask",
    "check_open",
    "follow",
    "is_loopback",
    "is_open",
    "laid_open",
    "open_rows",
    "packed",
    "prepare",
    "put",
    "refuse",
    "stop",
    "submit",
    "wait_for_start",
]
