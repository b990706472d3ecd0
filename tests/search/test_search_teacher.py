"""A search whose recipe has a teacher: what its results depend on, and what is refused before it begins."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tiny_spec import tiny_spec

from archsearch.errors import SpecError
from archsearch.registry import load_registry
from archsearch.search import Problem, SearchSpec, run_search
from archsearch.search.changes import affected, source_changes
from archsearch.storage import Store


def problem(teacher: str | None) -> Problem:
    spec = tomllib.loads(tiny_spec(2, recipe="" if teacher is None else f'teacher = "{teacher}"'))
    return Problem.of(SearchSpec.from_dict(spec), load_registry())


def test_the_source_of_the_teacher_is_part_of_the_search() -> None:
    plain, own, taught = ({part.name for part in problem(name).parts()} for name in (None, "self", "mla"))
    assert plain == own
    assert taught - plain == {"mixer:latent"}


def test_a_teacher_of_other_source_concerns_every_trial() -> None:
    arch = {"layers": [{"mixer": "sliding"}]}
    changes = source_changes({}, {"mixer:latent": ("v", "d")})
    assert not affected(arch, changes, problem("full").teacher_mixers)
    assert affected(arch, changes, problem("mla").teacher_mixers) == changes


def test_a_teacher_that_there_is_not_is_refused_with_the_spec() -> None:
    with pytest.raises(SpecError, match=r'recipe.teacher = "fall" is neither "self" nor one layer, .*"full"'):
        problem("fall")


def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/search.db") as store:
        with pytest.raises(SpecError, match=r'recipe.teacher = "kda" cannot say what it attends to: use "full"'):
            run_search(problem("kda"), store=store)
        assert not store.searches()
