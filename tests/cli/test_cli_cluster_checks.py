"""``doctor --address``: what it says of a cluster that answers, by what that answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray
from typer.testing import Result

from archsearch import jobs
from archsearch.jobs import cluster as cluster_module
from archsearch.registry import load_registry
from archsearch.version import __version__

Run = Callable[..., Result]
HERE = ray.__version__
PLUGINS = [list(one) for one in load_registry().fingerprint()]


def node(**changes: Any) -> dict[str, Any]:
    """What a node answers; its clock is that many seconds ahead when it does."""
    told = {"host": "head", "cpus": 2.0, "gpus": 1.0, "archsearch": __version__, "plugins": PLUGINS, "cards": ["H200"]}
    told["ports"] = [["127.0.0.1", "8265", "dashboard.py"]]
    return {**told, "clock": 0.0, **changes}


def answer(**changes: Any) -> dict[str, Any]:
    told = {
        "archsearch": __version__,
        "ray": "2.60.0",
        "python": "3.11.9",
        "host": "head",
        "plugins": PLUGINS,
        "broken": [],
        "database": {"url": "postgresql://me@db/searches", "search": None},
        "nodes": [node()],
        "faults": [],
    }
    return {**told, **changes}


def at_once(answered: dict[str, Any]) -> dict[str, Any]:
    """The answer, its clocks those of now."""
    return {**answered, "nodes": [{**one, "clock": time.time() + one["clock"]} for one in answered["nodes"]]}


@pytest.fixture
def checks(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, tuple[str, str]]]:
    """What doctor says of each thing, for a cluster that answers so."""

    def checked(
        answered: dict[str, Any], *, address: str = "http://127.0.0.1:8265", token: bool = True, version: str = HERE
    ) -> dict[str, tuple[str, str]]:
        pages = {
            "/api/authentication_mode": {"authentication_mode": "token" if token else "none"},
            "/api/version": {"ray_version": version},
        }
        client = type("Client", (), {"ask": lambda self, page: pages[page]})()
        monkeypatch.setattr(cluster_module.Cluster.__init__, "__kwdefaults__", {"connect": lambda address: client})
        monkeypatch.setattr(jobs, "put", lambda cluster, question, tell: at_once(answered))
        result = run("doctor", "--address", address, "--json")
        found = json.loads(result.stdout)
        assert result.exit_code == (0 if found["ok"] else 1), result.output
        return {one["name"]: (one["status"], one["detail"]) for one in found["checks"]}

    return checked


def test_what_is_in_order(checks: Callable[..., dict[str, tuple[str, str]]]) -> None:
    found = checks(answer())
    assert {status for status, _ in found.values()} <= {"ok", "note"}
    assert found["database"] == ("ok", "postgresql://me@db/searches is reached from head")
    assert found["node head"] == ("ok", "2 CPUs, 1 GPUs; H200")
    assert found["clocks"][0] == found["ports head"][0] == found["authentication"][0] == "ok"


OPEN = [["0.0.0.0", "6379", "gcs_server"], ["0.0.0.0", "6380", "gcs_server"], ["::", "8265", "dashboard.py"]]
OPEN_TOLD = "other machines reach gcs_server at 0.0.0.0 6379 6380, dashboard.py at :: 8265"


@pytest.mark.parametrize(
    ("answered", "how", "name", "status", "told"),
    [
        (answer(archsearch="9.9"), {}, "archsearch", "broken", f"9.9 there and {__version__} here"),
        (answer(), {"version": "2.999.1"}, "ray", "note", "`pip install 'ray[default,tune]==2.999.1'` here"),
        (answer(), {"version": "unknown"}, "ray", "note", f"needs >=2.60, <3; this machine has {HERE}"),
        (answer(), {"token": False}, "authentication", "note", "every user of this machine"),
        (answer(), {"token": False, "address": "http://192.0.2.1:1"}, "authentication", "broken", "whoever reaches"),
        (answer(broken=[["mine", "1", "no\ntorch"]]), {}, "plugin mine", "broken", "1: no torch"),
        (answer(plugins=PLUGINS[1:]), {}, "plugins", "note", "here, none there"),
        (answer(faults=[[4, "no tables"]]), {}, "database", "broken", "no tables"),
        (
            answer(nodes=[node(open_secrets=["ARCHSEARCH_STORAGE"])]),
            {},
            "database",
            "broken",
            "(ARCHSEARCH_STORAGE on head): take the password out",
        ),
        (answer(nodes=[node(), node(host="far", ports=OPEN)]), {}, "ports far", "note", f"{OPEN_TOLD}, with the token"),
        (answer(nodes=[node(ports=OPEN)]), {"token": False}, "ports head", "broken", "run code there"),
        (answer(nodes=[node(ports=[])]), {}, "ports head", "note", "cannot be told"),
        (answer(nodes=[node(clock=-3600.0)]), {}, "clocks", "note", "head by 3"),
        (answer(nodes=[node(silent="no answer")]), {}, "node head", "broken", "could not be asked: no answer"),
        (answer(nodes=[node(fault="no archsearch")]), {}, "node head", "broken", "no archsearch"),
        (answer(nodes=[node(archsearch="9.9")]), {}, "node head", "broken", "archsearch 9.9 there"),
        (answer(nodes=[node(plugins=PLUGINS[1:])]), {}, "node head", "broken", "on the head node, none there"),
    ],
)
def test_what_is_not_in_order_is_told(
    checks: Callable[..., dict[str, tuple[str, str]]],
    answered: dict[str, Any],
    how: dict[str, Any],
    name: str,
    status: str,
    told: str,
) -> None:
    found = checks(answered, **how)[name]
    assert found[0] == status
    assert told in found[1]


def test_a_cluster_whose_ray_runs_no_search_is_asked_nothing_more(
    checks: Callable[..., dict[str, tuple[str, str]]],
) -> None:
    found = checks({}, version="2.40.0")
    assert list(found) == ["ray", "authentication"]
    status, told = found["ray"]
    assert status == "broken"
    assert f"the cluster has Ray 2.40.0 and this machine {HERE}, and a search needs >=2.60, <3" in told
    assert f"install Ray {HERE} on every node of the cluster" in told
