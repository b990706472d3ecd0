"""References: the mixer `full` by its name, or what the spec names."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from search_fakes import Dense, fake_registry, fake_spec

from archsearch.errors import SpecError
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec


class Full(Dense):
    name = "full"


class Impostor(Dense):
    name, presets = "impostor", {"full": {}}


class Cheap(Dense):
    """A foreign mixer that calls itself full attention."""

    name: ClassVar[str] = "cheap"


def with_full(*mixers: Any) -> Registry:
    registry = fake_registry()
    for mixer in mixers:
        registry.add(mixer)
    return registry


def patterns(registry: Registry, references: Any = True, **space: Any) -> list[str]:
    tables: dict[str, Any] = {"space": space} if space else {}
    spec = SearchSpec.from_dict(fake_spec(search={"references": references}, **tables))
    return [arch.pattern(registry) for arch in Problem.of(spec, registry).references]


def test_the_reference_is_the_mixer_full_whatever_else_has_its_family() -> None:
    registry = with_full(Cheap(), Full())
    assert patterns(registry, mixers=["cheap", "window"]) == ["full*3", "cheap*3", "window*3"]


def test_a_foreign_mixer_of_the_family_full_does_not_become_the_reference() -> None:
    assert patterns(with_full(Cheap()), mixers=["window"]) == ["window*3"]


def test_a_preset_that_is_called_full_is_not_the_mixer_full() -> None:
    assert patterns(with_full(Impostor()), mixers=["window"]) == ["window*3"]


def test_full_in_the_space_is_measured_as_the_space_narrows_it() -> None:
    registry = with_full(Full())
    assert patterns(registry, mixers=["full", "window"], full={"rope": [0.0]}) == ["full(rope=0.0)*3", "window*3"]


def test_named_references_take_the_place_of_the_usual_ones() -> None:
    named = ["dense", "window(window=4)", "dense window recurrent", "dense*3"]
    assert patterns(fake_registry(), named) == ["dense*3", "window(window=4)*3", "dense window recurrent"]


def test_no_references_are_none() -> None:
    assert patterns(fake_registry(), False) == []
    assert patterns(fake_registry(), []) == []


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["dense", "nobody"], r'search.references\[1\]: unknown mixer "nobody"'),
        (["dense window"], "has 2 layers, and model.n_layers = 3"),
        (["dense(ropes=1)"], 'no option "ropes"'),
        ([3], "search.references"),
        ("dense", "search.references"),
    ],
    ids=str,
)
def test_references_that_cannot_be_are_refused(named: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        patterns(fake_registry(), named)


def test_references_survive_json() -> None:
    spec = SearchSpec.from_dict(fake_spec(search={"references": ["dense"]}))
    assert SearchSpec.from_dict(spec.to_json()) == spec
