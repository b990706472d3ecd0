"""What a training measures is what a store gives back: no reader takes a true measurement for a damaged row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_samples import RECIPE, Echo, EchoOptions, Tasks, arch_of, plugin_of, registry_of

from archsearch.measurement import Measurement
from archsearch.storage import NewTrial, Store
from archsearch.testing.toy_layer import RunningMean
from archsearch.training import Recipe, evaluate


class Spoilt(RunningMean):
    """Gives NaN, so that its training diverges."""

    def forward(self, x, *, state=None, ctx):  # type: ignore[no-untyped-def]
        y, after = super().forward(x, state=state, ctx=ctx)
        return y * torch.nan, after


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/searches.db") as opened:
        yield opened


@pytest.mark.parametrize(
    ("layer", "broken", "rates"),
    [
        pytest.param(RunningMean, {}, [1e-2], id="trained"),
        pytest.param(RunningMean, {"step": "evicts"}, [1e-2, 1e-3], id="judged-by-steps"),
        pytest.param(Spoilt, {}, [1e-2 / (1 + index) for index in range(200)], id="diverged-at-many-rates"),
    ],
)
def test_a_measurement_is_read_back_as_it_was_measured(layer, broken, rates, store: Store) -> None:  # type: ignore[no-untyped-def]
    registry = registry_of(plugin_of(layer, broken), Tasks(Echo))
    recipe = Recipe.read({**RECIPE, "learning_rates": rates})
    measured = evaluate(arch_of("toy toy", registry), Echo(EchoOptions()), recipe, 0, registry=registry)
    search = store.create_search("s", {}, [], plugins=[], parts=[])
    trial = store.add_trial(
        search,
        NewTrial(
            kind="search",
            state="running",
            arch=measured.arch,
            digest=measured.digest,
            pattern=measured.pattern,
            params={},
            seeds=[0],
            costs={},
            violations={},
        ),
    )

    store.add_measurement(trial, measured.to_json(), {"test": measured.test}, task="echo")

    (record,) = store.trial(trial).measurements
    assert Measurement.from_json(json.loads(json.dumps(record.payload))) == Measurement.from_json(
        json.loads(json.dumps(measured.to_json()))
    )
    assert store.remarks() == []
    assert store.find_measurement(measured.key) is not None
