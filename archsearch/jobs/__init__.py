"""Jobs: submit, follow and stop a search on a Ray cluster (the only code of the Ray Jobs API)."""

from __future__ import annotations

from archsearch.jobs.cluster import Cluster, Job
from archsearch.jobs.following import follow, stop, wait_for_start
from archsearch.jobs.submission import Submission, prepare, submit

__all__ = ["Cluster", "Job", "Submission", "follow", "prepare", "stop", "submit", "wait_for_start"]
