"""Every planted fault is found by its laws and by no other, and what is sound passes."""

from __future__ import annotations

import pytest
from zoo import ANIMALS, SOUND, Animal

from archsearch.mixer import MixerPlugin
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Outcome, tried


def outcomes(case: Case) -> dict[str, Outcome]:
    """How every law comes out, by its name."""
    return {law.name: tried(law, case) for law in LAWS}


@pytest.mark.parametrize("animal", ANIMALS.values(), ids=ANIMALS)
def test_a_planted_fault_is_found_by_its_laws_alone(animal: Animal) -> None:
    found = outcomes(Case.of(animal.plugin, {}, **animal.knobs))
    failed = {name: outcome.text for name, outcome in found.items() if outcome.status == "failed"}
    assert set(failed) == animal.broken, failed
    for text in failed.values():
        assert text.startswith('law "')
        assert "\n" not in text


@pytest.mark.parametrize("plugin", SOUND.values(), ids=SOUND)
def test_what_is_sound_passes(plugin: MixerPlugin) -> None:
    failed = {name: outcome for name, outcome in outcomes(Case.of(plugin, {})).items() if outcome.status == "failed"}
    assert failed == {}
