"""A cluster that is gone is noticed by looks at its nodes, and by their absence."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from ports import free_port

from archsearch.errors import ClusterError
from archsearch.search import workers as workers_module
from archsearch.search.cluster_watch import ROOMLESS_SECONDS, SILENT_SECONDS, ClusterWatch, takes_connections
from archsearch.search.tables.resources import ResourcesTable
from archsearch.search.workers import check_fits, demand_of


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources or {"CPU": 4.0}}


class Timed:
    def __init__(self, *, knocks: bool = True) -> None:
        self.now, self.knocks = 0.0, knocks
        self.watch = ClusterWatch(
            mine="a", fits=lambda node: node["NodeID"] == "b", knock=lambda node: self.knocks, clock=lambda: self.now
        )


def test_a_raylet_that_died_beside_the_driver_is_noticed_at_once() -> None:
    timed = Timed()
    assert timed.watch.saw([node("a"), node("b")]) == ""
    timed.knocks = False
    assert "its raylet" in timed.watch.saw([node("a"), node("b")])
    timed.knocks = True
    assert "its raylet" in timed.watch.saw([node("a", alive=False), node("b")])


def test_a_head_that_says_nothing_is_given_up_after_a_while() -> None:
    timed = Timed()
    timed.now = SILENT_SECONDS
    assert timed.watch.silence() == ""
    timed.watch.saw([node("a"), node("b")])
    timed.now += SILENT_SECONDS
    assert timed.watch.silence() == ""
    timed.now += 1.0
    assert timed.watch.silence() == "the cluster's head has not answered for 30 s"


def test_a_cluster_without_room_is_waited_for_and_then_given_up() -> None:
    timed = Timed()
    timed.now = ROOMLESS_SECONDS
    assert timed.watch.saw([node("a"), node("b", alive=False)]) == ""
    timed.now += 1.0
    assert "no machine of the cluster was large enough" in timed.watch.saw([node("a"), node("b", alive=False)])
    assert timed.watch.saw([node("a"), node("b")]) == ""


def test_a_knock_tells_a_closed_door_from_a_slow_one() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert takes_connections({"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port})
    assert not takes_connections({"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": free_port()})
    assert takes_connections({"NodeManagerAddress": "no.such.host.invalid", "NodeManagerPort": 1})


def test_a_trial_takes_what_the_spec_says_and_a_gpu_only_where_it_trains_on_one() -> None:
    assert demand_of(ResourcesTable(), "cpu") == {"cpu": 1.0}
    assert demand_of(ResourcesTable(), "cuda") == {"cpu": 1.0, "gpu": 1.0}
    assert demand_of(ResourcesTable(cpu=0.5, gpu=0.25), "cuda") == {"cpu": 0.5, "gpu": 0.25}
    assert demand_of(ResourcesTable(gpu=0), "cuda") == {"cpu": 1.0}


def test_a_trial_that_fits_on_no_node_is_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("a", CPU=4.0), node("b", CPU=2.0, GPU=1.0), node("c", alive=False, CPU=64.0, GPU=8.0)]
    monkeypatch.setattr(workers_module.ray, "nodes", lambda: nodes)
    check_fits({"cpu": 4.0})
    check_fits({"cpu": 2.0, "gpu": 0.5})
    with pytest.raises(ClusterError, match=r"takes 4 CPU and 1 GPU, .* \(they have 4 CPU and 0 GPU; 2 CPU and 1 GPU\)"):
        check_fits({"cpu": 4.0, "gpu": 1.0})
