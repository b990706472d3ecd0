"""What ``doctor --address`` says of a cluster, from its dashboard and from a small job that looks around there."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsearch.cli.machine import Check
from archsearch.cli.output import tell

if TYPE_CHECKING:
    from archsearch.jobs import RayVersions

MOST_SKEW_SECONDS = 5.0
"""Clocks that differ by less mislead nobody who reads moments of one database."""


def cluster_checks(address: str, storage: str | None) -> Iterator[Check]:
    """Versions, authentication, ports, the database, clocks, and every node; raises `ClusterError` where nothing
    answers. A cluster whose Ray can run no search is asked nothing more."""
    from archsearch.jobs import Cluster, Question, RayVersions, put

    cluster = Cluster(address)
    versions = RayVersions(there=cluster.ray_version())
    yield _ray(versions)
    token = cluster.authenticates()
    yield _authentication(cluster.address, token)
    if versions.unusable:
        return
    began = time.time()
    answer = put(cluster, Question(storage=storage, look=True), tell)
    ended = time.time()
    yield from _versions(answer)
    yield from _broken_plugins(answer)
    yield _plugins(answer)
    yield _database(answer)
    yield _clocks(answer["nodes"], began, ended)
    for node in answer["nodes"]:
        yield _node(node, answer)
    for node in answer["nodes"]:
        if "ports" in node:
            yield _ports(node, token=token)


def _authentication(address: str, token: bool) -> Check:
    from archsearch.jobs import is_loopback

    if token:
        return Check(name="authentication", status="ok", detail="everybody must show the cluster's token")
    if is_loopback(address):
        return Check(
            name="authentication",
            status="note",
            detail="nobody is asked for a token: every user of this machine runs code there; RAY_AUTH_MODE=token asks",
        )
    return Check(
        name="authentication",
        status="broken",
        detail="nobody is asked for a token: whoever reaches the port runs code there: start Ray with "
        "RAY_AUTH_MODE=token",
    )


def _ray(versions: RayVersions) -> Check:
    if versions.same:
        return Check(name="ray", status="ok", detail=versions.there)
    return Check(name="ray", status="broken" if versions.unusable else "note", detail=versions.sentence)


def _versions(answer: Mapping[str, Any]) -> Iterator[Check]:
    from archsearch.version import __version__

    yield _same("archsearch", __version__, str(answer["archsearch"]), "broken")
    yield _same("python", platform.python_version(), str(answer["python"]), "note")


def _same(name: str, here: str, there: str, otherwise: Any) -> Check:
    if here == there:
        return Check(name=name, status="ok", detail=there)
    return Check(name=name, status=otherwise, detail=f"{there} there and {here} here")


def _broken_plugins(answer: Mapping[str, Any]) -> Iterator[Check]:
    for name, version, error in answer["broken"]:
        yield Check(name=f"plugin {name}", status="broken", detail=f"{version}: {' '.join(str(error).split())}")


def _plugins(answer: Mapping[str, Any]) -> Check:
    """What is installed here and there; what differs is no obstacle to a search that does not use it."""
    from archsearch.registry import load_registry

    here = dict(load_registry().fingerprint())
    there = {str(name): str(version) for name, version in answer["plugins"]}
    if here == there:
        return Check(name="plugins", status="ok", detail=", ".join(sorted(there)))
    return Check(name="plugins", status="note", detail=f"not as here: {_differences(here, there, 'here', 'there')}")


def _differences(first: Mapping[str, str], second: Mapping[str, str], one: str, other: str) -> str:
    named = sorted(name for name in {**first, **second} if first.get(name) != second.get(name))
    told = [f"{name} {first.get(name, 'none')} {one}, {second.get(name, 'none')} {other}" for name in named]
    return "; ".join(told)


def _database(answer: Mapping[str, Any]) -> Check:
    from archsearch.jobs import laid_open

    url = answer["database"]["url"]
    secret = laid_open(answer)
    if secret:
        return Check(name="database", status="broken", detail=secret)
    faults = [text for _, text in answer["faults"]]
    if faults:
        return Check(name="database", status="broken", detail=faults[0])
    return Check(name="database", status="ok", detail=f"{url} is reached from {answer['host']}")


def _ports(node: Mapping[str, Any], *, token: bool) -> Check:
    """What the processes of Ray on a node listen on, and whether other machines reach it."""
    from archsearch.jobs import is_open

    name, bound = f"ports {node['host']}", [(str(where), str(port), str(what)) for where, port, what in node["ports"]]
    if not bound:
        return Check(name=name, status="note", detail="what they are bound to cannot be told there")
    others = [one for one in bound if is_open(one[0])]
    if not others:
        return Check(name=name, status="ok", detail=f"bound to its loopback alone: {_listed(bound)}")
    detail = f"other machines reach {_listed(others)}"
    if token:
        return Check(name=name, status="note", detail=f"{detail}, with the token")
    return Check(name=name, status="broken", detail=f"{detail}, and run code there: start Ray with RAY_AUTH_MODE=token")


def _listed(bound: Sequence[tuple[str, str, str]]) -> str:
    """Ports by the program that listens and the address that it is bound to."""
    found: dict[tuple[str, str], list[str]] = {}
    for address, port, program in bound:
        found.setdefault((program, address), []).append(port)
    return ", ".join(f"{program} at {address} {' '.join(ports)}" for (program, address), ports in found.items())


def _clocks(nodes: Sequence[Mapping[str, Any]], began: float, ended: float) -> Check:
    """How far a node's clock was outside of the time that its answer took."""
    skews = {
        str(node["host"]): max(began - node["clock"], node["clock"] - ended, 0.0) for node in nodes if "clock" in node
    }
    wrong = [f"{host} by {skew:.0f} s at least" for host, skew in skews.items() if skew > MOST_SKEW_SECONDS]
    if wrong:
        return Check(name="clocks", status="note", detail=f"not as here: {', '.join(wrong)}: set them by NTP")
    return Check(name="clocks", status="ok", detail=f"as here, within {ended - began + MOST_SKEW_SECONDS:.0f} s")


def _node(node: Mapping[str, Any], answer: Mapping[str, Any]) -> Check:
    """A node against the head, whose source is the one that drives."""
    name = f"node {node['host']}"
    if "silent" in node:
        return Check(name=name, status="broken", detail=f"it could not be asked: {node['silent']}")
    if "fault" in node:
        return Check(name=name, status="broken", detail=str(node["fault"]))
    if node["archsearch"] != answer["archsearch"]:
        detail = f"archsearch {node['archsearch']} there, {answer['archsearch']} on the head node"
        return Check(name=name, status="broken", detail=detail)
    head, there = (dict(map(tuple, told["plugins"])) for told in (answer, node))
    if head != there:
        differ = _differences(head, there, "on the head node", "there")
        return Check(name=name, status="broken", detail=f"other plugins: {differ}")
    held = f"{node['cpus']:g} CPUs, {node['gpus']:g} GPUs"
    return Check(name=name, status="ok", detail="; ".join([held, *map(str, node.get("cards", []))]))
