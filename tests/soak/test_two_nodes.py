"""A search across two machines, whose link is cut for a moment and for long."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from soak import LIMIT, SPEC, Soak, end, waited_for
from two_nodes import TwoNodes, why_not

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
WIDE = SPEC.replace("concurrency = 1", "concurrency = 2").replace("trials = 2", "trials = 4")
PARTS = SPEC.replace("checkpoint_seconds = 1", "accumulate = 2")
"""A batch in two parts, whoever trains them."""


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    fault = why_not()
    if fault:
        pytest.skip(fault)
    with tempfile.TemporaryDirectory(prefix="as-", dir="/tmp") as folder:  # Ray's sockets have short paths
        cluster = TwoNodes(Path(folder), dict(os.environ))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()


def test_a_search_outlives_a_machine_that_is_cut_off(two_nodes: TwoNodes, tmp_path: Path) -> None:
    soak = Soak(tmp_path, f"sqlite:///{tmp_path}/search.db", steps=600)
    soak.prefix, soak.environ["RAY_AUTH_MODE"] = two_nodes.on_near(), "disabled"
    process = soak.start("run", str(soak.spec("wide", WIDE)), "--address", two_nodes.address)
    try:
        waited_for(lambda: {"near", "far"} <= nodes(soak), process, "the machines do not both train")
        with two_nodes.cut():
            time.sleep(2.0)
        assert not lost(soak), "a moment without a link costs nothing"
        with two_nodes.cut():
            waited_for(lambda: lost(soak), process, "nobody notices that a machine is gone")
        assert process.wait(LIMIT) == 0, soak.log()
    finally:
        end(process)
    two_nodes.wait_for("far", starts=2)  # it joins again once the link is there
    trials = soak.trials("wide")
    assert {trial.state for trial in trials} == {"complete"}
    assert [trial.attempts for trial in trials if trial.attempts] == [1]
    assert len(trials) == 6
    keys = [found.key for trial in trials for found in trial.measurements]
    assert len(keys) == len(set(keys))


def test_a_candidate_trained_over_both_machines_gives_the_record_of_one(two_nodes: TwoNodes, tmp_path: Path) -> None:
    records, places = {}, {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        soak = Soak(folder, f"sqlite:///{folder}/search.db", steps=20)
        soak.prefix, soak.environ["RAY_AUTH_MODE"] = two_nodes.on_near(), "disabled"
        spec = soak.spec("shared", f"{PARTS}[resources]\nworkers = {workers}\n")
        process = soak.start("run", str(spec), "--address", two_nodes.address)
        try:
            assert process.wait(LIMIT) == 0, soak.log()
        finally:
            end(process)
        trials = soak.trials("shared")
        assert {trial.state for trial in trials} == {"complete"}
        records[workers] = {found.key: found for trial in trials for found in trial.measurements}
        places[workers] = [trial.placement or {} for trial in trials]
    assert {place["node"] for place in places[2]} <= {"near", "far"}
    assert {found.payload["versions"].get("workers") for found in records[2].values()} == {"2"}
    assert records[1].keys() == records[2].keys()
    for key, alone in records[1].items():
        shared = records[2][key]
        assert shared.payload["test"] == pytest.approx(alone.payload["test"], abs=1e-4)
        losses = [[look["loss"] for look in found.payload["curve"]] for found in (shared, alone)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def nodes(soak: Soak) -> set[str]:
    return {trial.placement["node"] for trial in soak.placed("wide") if trial.placement}


def lost(soak: Soak) -> list[int]:
    return [trial.id for trial in soak.trials("wide") if trial.attempts]
