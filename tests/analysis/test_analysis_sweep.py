"""Curves of a sweep, from stored trials: which points there are, what they cost, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archsearch.analysis.sweep import measured, read_sweep
from archsearch.analysis.sweep_caveats import caveats
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError, StorageError
from archsearch.registry import Registry
from archsearch.storage import NewTrial, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as opened:
        yield opened


def payload(pairs: Any, seed: int, value: float | None) -> dict[str, Any]:
    values = {} if value is None else {"accuracy": value}
    return {
        "key": f"{pairs}/{seed}/{value}",
        "digest": "",
        "task": f"mqar:compact(pairs={pairs})",
        "task_options": {"name": "mqar", "setting": "compact", "options": {"pairs": pairs, "seq_len": 48}},
        "seq_len": 48,
        "seed": seed,
        "metric": "accuracy",
        "direction": "maximize",
        "chance": 0.0625,
        "status": "diverged" if value is None else "complete",
        "test": values,
        "validation": values,
        "sweep": [{"learning_rate": rate, "validation": values} for rate in (0.01, 0.02, 0.03)],
        "curve": [],
    }


def add(
    store: Store,
    search: int,
    arch: ArchSpec,
    registry: Registry,
    values: dict[Any, list[float | None]],
    state: str = "complete",
) -> None:
    trial = store.add_trial(
        search,
        NewTrial(
            kind="search",
            state="queued",
            digest=arch.digest,
            pattern=arch.pattern(registry),
            arch=arch.to_json(),
            params={},
            seeds=[0, 1],
            costs={},
            violations={},
        ),
    )
    for pairs, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            run = payload(pairs, seed, value)
            store.add_measurement(trial, {**run, "key": f"{trial}/{run['key']}"}, {}, task=run["task"])
    store.set_trial_state(trial, state, "lost" if state == "failed" else "")


def arch_of(text: str, registry: Registry, d_model: int = 64) -> ArchSpec:
    return ArchSpec.parse(text, registry, ModelSpec(d_model=d_model, n_heads=2, channel_mixer="none"))


def filled(store: Store, registry: Registry) -> None:
    spec = {
        "objectives": {"context": 1024},
        "model": {"n_layers": 2},
        "space": {"pattern": "listed", "architectures": ["full*2", "sliding(window=4)*2", "sliding(window=40)"]},
    }
    search = store.create_search("swept", spec, [])
    add(store, search, arch_of("full*2", registry), registry, {4: [1.0, 0.98], 12: [0.9, 0.94]})
    add(store, search, arch_of("sliding(window=16)*2", registry), registry, {4: [0.8, 0.9], 12: [0.5, None]})
    add(store, search, arch_of("sliding(window=4)*2", registry), registry, {4: [0.3, 0.3], 12: [0.2, 0.1]})
    add(store, search, arch_of("sliding(window=4) full", registry), registry, {4: [1.0, 1.0]})
    add(store, search, arch_of("moba(block_size=4, top_k=2)*2", registry), registry, {None: [0.5, 0.5]})
    add(store, search, arch_of("linear*2", registry), registry, {}, state="failed")
    wide = store.create_search("swept-d128", {}, [])
    add(store, wide, arch_of("full*2", registry, 128), registry, {4: [1.0, 1.0], 12: [1.0, 0.98]})
    for other in ("swept-dd1", "swept-d128-b", "xswept-d1"):
        add(store, store.create_search(other, {}, []), arch_of("full*2", registry), registry, {4: [0.0, 0.0]})


def test_curves_are_of_pure_architectures_at_each_number_of_pairs_and_width(store: Store, registry: Registry) -> None:
    filled(store, registry)
    found = read_sweep(store, "swept", registry)
    assert found.searches == ("swept", "swept-d128")
    assert (found.pairs, found.mixers, found.context) == ((4, 12), ("full", "sliding"), 1024)
    assert [(point.layer, point.d_model, point.score.mean) for point in found.curve("full", 12)] == [
        ("full", 64, pytest.approx(0.92)),
        ("full", 128, pytest.approx(0.99)),
    ]
    small, large = found.curve("sliding", 4)
    assert (small.layer, large.layer) == ("sliding(window=4)", "sliding(window=16)")
    assert large.score.error == pytest.approx(0.05)
    assert (
        large.costs["state_bytes"]
        == CostModel(registry).cost(arch_of("sliding(window=16)*2", registry), 48).state_bytes
    )
    assert (large.far["state_bytes"], small.family) == (large.costs["state_bytes"], "sliding")
    full = found.curve("full", 4)[0]
    assert full.far["state_bytes"] > 20 * full.costs["state_bytes"]
    assert ("linear*2", "failed", "lost") in found.waiting
    assert ("sliding(window=40)", "not begun", "") in found.waiting
    assert found.drawable


def test_a_diverged_point_has_no_mean_and_is_told(store: Store, registry: Registry) -> None:
    filled(store, registry)
    found = read_sweep(store, "swept", registry)
    said = "\n".join(caveats(found))
    assert "sliding(window=16) at 12 pairs is left out: seed 1 diverged" in said
    assert "full is sized by the width of the model" in said
    assert "counted at the task's 48 tokens, and again at 1,024" in said
    assert "not measured: linear*2 is failed: lost" in said
    point = next(
        row for row in found.to_json()["points"] if row["layer"] == "sliding(window=16)" and row["pairs"] == 12
    )
    assert (point["mean"] != point["mean"], point["diverged"]) == (True, [1])
    frame = found.frame()
    assert {"state_bytes", "state_bytes@1024", "decode_read_bytes@1024"} <= set(frame.columns)
    assert frame.loc[frame["d_model"] == 128, "search"].unique().tolist() == ["swept-d128"]


def test_where_every_point_diverged_nothing_is_said_of_its_seeds(store: Store, registry: Registry) -> None:
    add(store, store.create_search("swept", {}, []), arch_of("full*2", registry), registry, {4: [None, None]})
    said = "\n".join(caveats(read_sweep(store, "swept", registry)))
    assert "full at 4 pairs is left out: seed 0, 1 diverged" in said
    assert "one seed a point" not in said


def test_a_single_learning_rate_is_told(store: Store, registry: Registry) -> None:
    add(store, store.create_search("swept", {}, []), arch_of("full*2", registry), registry, {4: [0.8, 0.9]})
    found = read_sweep(store, "swept", registry)
    assert "was tried" not in "\n".join(caveats(found))
    (point,) = found.points
    lone = replace(point.score, rates=replace(point.score.rates, means={0.01: 0.85}))
    found = replace(found, points=(replace(point, score=lone),))
    assert "one learning rate, 0.01, was tried" in "\n".join(caveats(found))


def test_what_measured_nothing_with_pairs_is_refused(store: Store, registry: Registry) -> None:
    search = store.create_search("other", {}, [])
    with pytest.raises(SpecError, match='"other" has measured no architecture of one mixer on a task with pairs: '):
        measured(read_sweep(store, "other", registry))
    add(store, search, arch_of("full*2", registry), registry, {True: [1.0, 1.0]})
    assert not read_sweep(store, "other", registry).points
    add(store, search, arch_of("full*2", registry), registry, {4: [1.0, 1.0]})
    assert measured(read_sweep(store, "other", registry)).drawable is False
    with pytest.raises(StorageError, match='no search "none"'):
        read_sweep(store, "none", registry)
