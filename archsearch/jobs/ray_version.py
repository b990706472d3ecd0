"""The Ray of a cluster beside the one that asks: told, or refused, before anything is sent there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires

import ray
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from archsearch.errors import ClusterError
from archsearch.jobs.cluster import Cluster
from archsearch.jobs.following import Tell

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class RayVersions:
    """The version of Ray on a cluster's head node (`UNKNOWN` where that does not tell) and here."""

    there: str
    here: str = ray.__version__

    @property
    def same(self) -> bool:
        """Whether there is nothing to be said."""
        return self.there == self.here

    @property
    def unusable(self) -> bool:
        """Whether no search can run on the cluster's."""
        try:
            return Version(self.there) not in supported()
        except InvalidVersion:
            return False

    @property
    def sentence(self) -> str:
        """Both versions, and what to do; "" where they are the same."""
        if self.same:
            return ""
        needed = ", ".join(sorted(map(str, supported()), reverse=True))
        if self.there == UNKNOWN:
            return f"the cluster does not tell which Ray it has: a search needs {needed}; this machine has {self.here}"
        both = f"the cluster has Ray {self.there} and this machine {self.here}"
        if self.unusable:
            return (
                f"{both}, and a search needs {needed}: install Ray {self.here} on every node of the cluster, and start "
                "it there again"
            )
        return f"{both}: jobs are read by either; `pip install 'ray[default,tune]=={self.there}'` here makes them one"


@cache
def supported() -> SpecifierSet:
    """The versions of Ray that archsearch asks for, as its package says; any where it runs without being installed."""
    with suppress(PackageNotFoundError):
        for found in map(Requirement, requires("archsearch") or ()):
            if found.name == "ray":
                return found.specifier
    return SpecifierSet()


def check_ray(cluster: Cluster, tell: Tell) -> None:
    """Tells that the cluster has another Ray; raises `ClusterError` for one on which no search can run."""
    versions = RayVersions(there=cluster.ray_version())
    if versions.same or versions.there == UNKNOWN:
        return
    if versions.unusable:
        raise ClusterError(f"{cluster.address}: {versions.sentence}")
    tell(versions.sentence)
