"""The space: what is drawn, what is never drawn, how many candidates there are, and replay."""

from __future__ import annotations

import random
from typing import Any

import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.errors import SpecError
from archsearch.search.problem import Problem
from archsearch.search.space import ReplayDraw, Space
from archsearch.search.spec import SearchSpec

REGISTRY = fake_registry()

SPACES: dict[str, dict[str, Any]] = {
    "free": {"mixers": ["dense", "window", "recurrent"], "window": {"window": [4, 8]}},
    "free-one": {"mixers": ["window"], "window": {"window": 8}},
    "periodic": {"mixers": ["dense", "window"], "pattern": "periodic", "period": 3},
    "ratio": {"mixers": ["dense", "window", "recurrent"], "pattern": "ratio", "ratios": [1, 2, 3]},
    "ratio-shared": {
        "mixers": ["recurrent", "deltanet"],
        "pattern": "ratio",
        "ratios": [1, 3],
        "costly": ["deltanet"],
    },
    "preset": {"mixers": ["retention", "deltanet"]},
}


def space(name: str, n_layers: int = 4) -> Space:
    spec = SearchSpec.from_dict(fake_spec(space=SPACES[name], model={"n_layers": n_layers}))
    return Problem.of(spec, REGISTRY).space


class Recorder:
    """Random choices, recorded with what they were chosen from."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.params: dict[str, Any] = {}
        self.choices: dict[str, tuple[Any, ...]] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.choices[name] = tuple(choices)
        chosen = self.params[name] = self.rng.choice(choices)
        return chosen


@pytest.mark.parametrize(("name", "n_layers"), [*((name, 4) for name in SPACES), ("periodic", 5), ("ratio", 7)])
def test_the_count_is_the_number_of_distinct_digests(name: str, n_layers: int) -> None:
    found = [arch.digest for arch in space(name, n_layers).all()]
    assert len(found) == len(set(found)) == space(name, n_layers).count()


@pytest.mark.parametrize("name", SPACES)
def test_draws_reach_every_candidate_and_nothing_else(name: str) -> None:
    small = space(name, 4 if "ratio" in name else 3)
    rng = random.Random(0)
    drawn = {small.random(rng).digest for _ in range(6000)}
    every = {arch.digest for arch in small.all()}
    assert drawn <= every
    assert len(drawn) >= 0.9 * len(every)


@pytest.mark.parametrize("name", SPACES)
def test_a_parameter_has_one_set_of_choices(name: str) -> None:
    rng, searched = random.Random(0), space(name)
    choices: dict[str, tuple[Any, ...]] = {}
    for _ in range(500):
        recorder = Recorder(rng)
        searched.draw(recorder)
        for parameter, offered in recorder.choices.items():
            assert len(offered) > 1
            assert choices.setdefault(parameter, offered) == offered


def test_recorded_choices_replay_to_the_same_candidate() -> None:
    recorder = Recorder(random.Random(1))
    arch = space("free").draw(recorder)
    replay = ReplayDraw(recorder.params)
    assert space("free").draw(replay).digest == arch.digest
    assert {name: tuple(dist.choices) for name, dist in replay.distributions.items()} == recorder.choices


def test_choices_that_the_space_lost_are_refused() -> None:
    with pytest.raises(SpecError, match=r"layer0\.mixer"):
        space("free").draw(ReplayDraw({"layer0.mixer": "moba"}))


def test_invalid_combinations_are_never_drawn() -> None:
    rng, searched = random.Random(0), space("preset", 2)
    for _ in range(500):
        for layer in searched.random(rng).layers:
            options: Any = layer.options
            assert not (options.update == "delta" and options.norm == "none")


def test_a_preset_keeps_what_it_fixes_and_searches_the_rest() -> None:
    entries = space("preset").entries
    assert [layer.options.norm for layer in entries["retention"].layers] == ["none", "l2", "rms"]  # type: ignore[attr-defined]
    assert len(entries["deltanet"].layers) == 1


def test_a_ratio_puts_the_costly_layer_last_in_each_unit() -> None:
    for arch in space("ratio", 8).all():
        mixers = [layer.mixer for layer in arch.layers]
        first = mixers.index("dense")
        assert [index for index, mixer in enumerate(mixers) if mixer == "dense"] == list(range(first, 8, first + 1))


def test_a_unit_is_cut_at_the_last_layer() -> None:
    patterns = {tuple(layer.mixer for layer in arch.layers) for arch in space("periodic", 5).all()}
    assert ("dense", "window", "window", "dense", "window") in patterns
    assert ("dense", "window", "window", "window", "dense") not in patterns


@pytest.mark.parametrize("name", ["free", "periodic", "preset"])
def test_choices_lead_to_every_pure_candidate(name: str) -> None:
    searched = space(name)
    found = {searched.draw(ReplayDraw(params)).layers for params in searched.pure()}
    assert found == {(layer,) * 4 for entry in searched.entries.values() for layer in entry.layers}


def test_references_take_the_first_narrowed_value_and_the_defaults() -> None:
    entry = space("free").entries["window"]
    assert entry.reference.options.window == 4  # type: ignore[attr-defined]
    assert space("periodic").entries["window"].reference.options.window == 8  # type: ignore[attr-defined]
