"""The catalogue of systems: every one of the registry, and how its state grows in a word."""

from __future__ import annotations

from typing import Any

import pytest

from archsearch.analysis.catalogue import catalogue, growth, options_of, presets_of, rows_in_words, systems
from archsearch.registry import Registry
from archsearch.shapes import StateTensor
from archsearch.testing.toy import ToyPlugin


def tensor(**given: Any) -> StateTensor:
    return StateTensor(name="t", row_shape=(2,), dtype="bfloat16", role="kv", **given)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([], "none"),
        ([tensor(base=1)], "constant"),
        ([tensor(stride=1)], "T"),
        ([tensor(base=3, stride=16), tensor(stride=4096)], "T / 16"),
        ([tensor(stride=1, cap=128), tensor(base=1)], "at most 128 tokens"),
        ([tensor(stride=1, cap=1024), tensor(stride=128)], "T / 128"),
        ([tensor(log2=True), tensor(base=1)], "log T"),
        ([tensor(stride=16, cap=4)], "constant"),
    ],
)
def test_growth_is_that_of_the_tensor_that_grows_most(tensors: list[StateTensor], said: str) -> None:
    assert growth(tensors) == said


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"base": 1}, "1, however long the sequence"),
        ({"stride": 1}, "one a token"),
        ({"stride": 1, "cap": 128}, "one a token, at most 128"),
        ({"stride": 64, "base": 4}, "4 and one every 64 tokens"),
        ({"log2": True}, "one more with each doubling of the tokens"),
    ],
)
def test_the_growth_of_a_state_is_said_in_words(given: dict[str, Any], told: str) -> None:
    assert rows_in_words(tensor(**given)) == told


def test_the_catalogue_is_of_the_registry(installed: Registry) -> None:
    found = {entry.name: entry for entry in catalogue(installed)}
    assert (found["kda"].mixer, found["kda"].family, found["kda"].growth) == ("linear", "linear", "constant")
    assert found["full"].growth == "T"
    assert [entry.family for entry in found.values()] == sorted(entry.family for entry in found.values())
    assert {entry.name for entry in systems(installed)} == {
        name for mixer in installed.mixers() for name in mixer.systems
    }


def test_a_mixer_that_names_no_system_is_told_by_its_summary() -> None:
    toys = Registry()
    toys.add(ToyPlugin(), name="toy")
    assert {(entry.mixer, entry.rule, entry.source) for entry in catalogue(toys)} == {("toy", ToyPlugin.summary, "")}
    assert systems(toys) == []


def test_every_option_of_the_built_in_mixers_is_explained(installed: Registry) -> None:
    options = [(mixer.name, one) for mixer in installed.mixers() for one in options_of(mixer.name, installed)]
    assert len(options) > 10
    assert [(mixer, one.option) for mixer, one in options if not one.meaning] == []
    assert [(mixer, one.option) for mixer, one in options if "``" in one.meaning or "typing" in one.type] == []


def test_options_are_told_as_a_pattern_has_them(installed: Registry) -> None:
    found = {one.option: one for one in options_of("parallel", installed)}
    assert (found["a"].type, found["a"].default) == ("layer", "sliding")
    assert (found["more"].type, found["more"].default) == ("list of layer", "none")
    assert found["join"].searched == ("mean", "sum", "gate")
    assert {one.option: one.default for one in options_of("falcon-h1", installed)}["a"] == "full(rope=1.0)"
    fixed = {one.preset: one.fixes for one in presets_of(installed.mixer("parallel"), installed)}
    assert fixed["falcon-h1"] == "a=full(rope=1.0), b=mamba2, join=sum"
    for preset, fixes in fixed.items():
        assert installed.layer(f"parallel({fixes})") == installed.layer(preset)
