"""What a search that goes on may have changed: its spec by growth that is stated, its source when it is retrained."""

from __future__ import annotations

from typing import Any

import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.errors import SpecError
from archsearch.search.changes import affected, check_growth, refuse_changed_source, source_changes
from archsearch.search.spec import SearchSpec
from archsearch.storage.spec_keys import GROWING

REGISTRY = fake_registry()
BUDGET = {"state_bytes": "100 KiB"}


def spec(**tables: Any) -> SearchSpec:
    return SearchSpec.from_dict(fake_spec(**{"budget": BUDGET, **tables}))


def test_the_same_spec_is_no_change() -> None:
    check_growth(spec(), spec(), ())


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"recipe": {"steps": 9}}, "recipe.steps was 4 and is 9"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"search": {"trials": 5}}, "search.trials was 6 and is 5"),
        ({"search": {"confirm_seeds": 2}}, "search.confirm_seeds was 1 and is 2"),
        ({"budget": {"state_bytes": "50 KiB"}}, "budget.state_bytes"),
        ({"budget": {**BUDGET, "decode_flops": "1 GFLOP"}}, "budget.decode_flops was not given"),
        ({"space": {"mixers": ["dense", "window"]}}, "space.mixers"),
        ({"tasks": [{"name": "recall-task", "setting": "long"}]}, "tasks was"),
        ({"objectives": {"context": 2048}}, "objectives.context was 1024 and is 2048"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_that_is_no_growth_is_refused_key_by_key(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match="put the old values back, or give the changed search another name") as error:
        check_growth(spec(), spec(**tables), GROWING)
    assert said in str(error.value)


def test_every_changed_key_is_named_at_once() -> None:
    with pytest.raises(SpecError, match=r"recipe.steps was 4 and is 9; .*search.sampler") as error:
        check_growth(spec(), spec(recipe={"steps": 9}, search={"sampler": "random", "trials": 9}), GROWING)
    assert "search.trials" not in str(error.value)


GROWTH: list[dict[str, Any]] = [
    {"search": {"trials": 9}},
    {"search": {"concurrency": 3}},
    {"search": {"max_draws": 9999}},
    {"budget": {"state_bytes": "200 KiB"}},
    {"budget": {}},
]


@pytest.mark.parametrize("tables", GROWTH, ids=str)
def test_growth_must_be_stated(tables: dict[str, Any]) -> None:
    check_growth(spec(), spec(**tables), GROWING)
    with pytest.raises(SpecError, match="add --grow"):
        check_growth(spec(), spec(**tables), ())


def test_an_option_states_its_own_key_alone() -> None:
    given = spec(search={"trials": 9, "concurrency": 2})
    with pytest.raises(SpecError, match=r"search.concurrency was 1 and is 2: add --grow"):
        check_growth(spec(), given, ["search.trials"])
    check_growth(spec(), given, ["search.trials", "search.concurrency"])


def test_the_same_budget_in_other_words_is_no_narrower_one() -> None:
    given = spec(budget={"state_bytes@1024": 102400})
    check_growth(spec(), given, GROWING)


STORED = {"mixer:a": ("lab 1 r1", "0a"), "mixer:b": ("lab 1 r1", "0b"), "core": ("archsearch 1", "0c")}


def test_source_that_is_the_same_is_no_change() -> None:
    assert source_changes(STORED, dict(STORED)) == []
    refuse_changed_source("mine", [])


def test_changed_source_is_refused_with_both_digests() -> None:
    changes = source_changes(STORED, {**STORED, "mixer:a": ("lab 1 r1", "ff")})
    with pytest.raises(SpecError, match="mixer:a had lab 1 r1 0a, has lab 1 r1 ff") as error:
        refuse_changed_source("mine", changes)
    assert "archsearch resume mine --retrain" in str(error.value)


def test_a_search_without_digests_is_one_of_other_source() -> None:
    changes = source_changes({}, STORED)
    assert [change.part for change in changes] == ["core", "mixer:a", "mixer:b"]
    assert "core had nothing recorded" in str(changes[0])


@pytest.mark.parametrize(
    ("changed", "hit"),
    [("mixer:a", ["one"]), ("mixer:b", ["one", "two"]), ("core", ["one", "two"]), ("task:mqar", ["one", "two"])],
)
def test_a_change_concerns_the_trials_that_it_computed(changed: str, hit: list[str]) -> None:
    archs = {"one": {"layers": [{"mixer": "a"}, {"mixer": "b"}]}, "two": {"layers": [{"mixer": "b"}]}}
    changes = source_changes({}, {changed: ("v", "d")})
    assert [name for name, arch in archs.items() if affected(arch, changes)] == hit


def test_what_a_trial_may_take_of_the_machines_may_change_without_a_word() -> None:
    """No result depends on it, so that a search may go on elsewhere, or with more patience."""
    before = SearchSpec.from_dict(fake_spec())
    now = SearchSpec.from_dict(fake_spec(resources={"cpu": 2, "max_seconds": 60}, search={"retries": 5}))
    check_growth(before, now, ())
