"""Every planted fault is found by its laws and by no other, and what is sound passes."""

from __future__ import annotations

from typing import Any

import pytest
from zoo import ANIMALS, VALUES, Animal
from zoo_mixers import planted
from zoo_sound import GIVER, READER, SOUND  # by way of zoo_figures and zoo_values, whose mixers are then among ANIMALS

from archsearch import ArchSpec, ModelSpec, load_registry
from archsearch.errors import SpecError
from archsearch.mixer import MixerPlugin
from archsearch.model import HybridLM
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, LawBroken, Outcome, tried


def outcomes(case: Case) -> dict[str, Outcome]:
    """How every law comes out, by its name."""
    return {law.name: tried(law, case) for law in LAWS}


QUICK = {
    "keeps-a-cache-in-an-attribute-of-the-state",
    "steps-differently-after-110-tokens",
    "leaks-token-128",
    "leaks-in-training",
    "mixes-packed-sequences",
    "declares-two-laws-broken-of-which-one-holds",
    "shares-a-key-without-its-index",
    "masks-by-positions",
    "states-1e-06-of-its-products",
    "reads-less-than-it-says",
}
"""What the default run tries; `make test-door` tries all."""


@pytest.mark.parametrize(
    "animal",
    [pytest.param(found, id=name, marks=[] if name in QUICK else pytest.mark.door) for name, found in ANIMALS.items()],
)
def test_a_planted_fault_is_found_by_its_laws_alone(animal: Animal) -> None:
    found = outcomes(Case.of(animal.plugin, {}, **animal.knobs))
    failed = {name: outcome.text for name, outcome in found.items() if outcome.status == "failed"}
    assert set(failed) == animal.broken, failed
    for text in failed.values():
        assert text.startswith('law "')
        assert "\n" not in text


def test_what_is_tried_by_default_is_planted() -> None:
    assert set(ANIMALS) > QUICK


@pytest.mark.parametrize(
    "plugin",
    [
        pytest.param(found, id=name, marks=pytest.mark.door if index else [])
        for index, (name, found) in enumerate(SOUND.items())
    ],
)
def test_what_is_sound_passes(plugin: MixerPlugin[Any]) -> None:
    failed = {name: outcome for name, outcome in outcomes(Case.of(plugin, {})).items() if outcome.status == "failed"}
    assert failed == {}


def law_named(name: str) -> Law:
    return next(law for law in LAWS if law.name == name)


def test_check_raises_the_same_line() -> None:
    case = Case.of(ANIMALS["steps-differently-after-110-tokens"].plugin, {})
    law = law_named("forward_equals_repeated_step")
    with pytest.raises(LawBroken) as broken:
        law.check(case)
    assert str(broken.value) == tried(law, case).text
    assert str(broken.value).startswith('law "step": from token 110 on, repeated step differs from forward by ')


def test_a_law_that_is_declared_broken_tells_the_reason() -> None:
    case = Case.of(SOUND["packing-that-is-declared-broken"], {})
    outcome = tried(law_named("packed_sequences_are_apart"), case)
    assert (outcome.status, outcome.text) == ("declared broken", 'law "packed" is declared broken: averages')


@pytest.mark.parametrize("name", [name for name, found in ANIMALS.items() if VALUES in found.broken])
def test_values_that_a_layer_keeps_to_itself_are_found(name: str) -> None:
    outcome = tried(law_named(VALUES), Case.of(ANIMALS[name].plugin, {}))
    assert outcome.status == "failed"
    assert outcome.text.startswith('law "values take a residual": ')


def test_values_that_are_handed_on_pass() -> None:
    assert tried(law_named(VALUES), Case.of(SOUND["attention-with-values"], {})).status == "passed"


@pytest.mark.door
def test_a_layer_is_tried_behind_what_it_reads() -> None:
    registry = load_registry([planted(), GIVER, READER], environ={"ARCHSEARCH_LOAD_PLUGINS": "none"})
    by_pattern = Case.of(READER, {}, registry=registry, pattern="zoo-cache zoo-giver zoo-reader")
    by_itself = Case.of(READER, {}, registry=registry)
    assert by_pattern.layer.index == 2
    assert [layer.mixer for layer in by_itself.layer.pattern or ()] == ["zoo-giver", "zoo-reader", "zoo-reader"]
    for case in (by_pattern, by_itself):
        found = outcomes(case)
        assert {name: one.text for name, one in found.items() if one.status == "failed"} == {}
        assert found["forward_equals_repeated_step"].status == "passed"


def test_an_arrangement_that_is_refused_is_refused_by_the_model_too() -> None:
    plugin = planted(check=lambda self, options, shape, layer: None if layer.index else "not the first")
    registry = load_registry([plugin], environ={"ARCHSEARCH_LOAD_PLUGINS": "none"})
    case = Case.of(plugin, {}, registry=registry)
    assert case.layer.index == 1
    assert case.at(0).build() is not None
    assert tried(law_named("refused_layers_are_not_built"), case).status == "passed"
    model = ModelSpec(d_model=16, n_heads=4, channel_mixer="none")
    with pytest.raises(SpecError, match="not the first"):
        HybridLM(ArchSpec.parse("zoo-cache zoo-cache", registry, model), registry)
