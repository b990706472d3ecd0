"""A sweep: which sizes of a mixer's state are trained, at which numbers of pairs, in which searches."""

from __future__ import annotations

from typing import Any

import pytest

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import ArchsearchError, SpecError
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.sweep import default_spec, sweep_specs, texts_of, told, trainings, wholes_of


def spec(**changes: Any) -> SearchSpec:
    values: dict[str, Any] = {
        "name": "recall",
        "model": {"d_model": 64, "n_layers": 2, "n_heads": 2, "channel_mixer": "none"},
        "space": {"mixers": ["full", "sliding"]},
        "tasks": [{"name": "mqar", "setting": "compact"}],
        "objectives": {"minimize": ["state_bytes"]},
    }
    return SearchSpec.from_dict({**values, **changes})


def listed(specs: tuple[SearchSpec, ...]) -> dict[str, list[str]]:
    return {one.name: list(one.space.architectures) for one in specs}


def test_a_mixer_is_sized_by_the_option_that_changes_its_state_most(registry: Registry) -> None:
    (one,) = sweep_specs(spec(), registry, mixers=["sliding", "gated-deltanet"], pairs=[4, 12])
    assert list(one.space.architectures) == [
        "sliding(window=4)*2",
        "sliding(window=16)*2",
        "sliding(window=32)*2",
        "gated-deltanet(key_dim=4)*2",
        "gated-deltanet(key_dim=16)*2",
        "gated-deltanet(key_dim=32)*2",
    ]
    assert [dict(table.options)["pairs"] for table in one.tasks] == [4, 12]
    model = one.model.backbone(vocab_size=33)
    sizes = [
        CostModel(registry).cost(ArchSpec.parse(text, registry, model), 48).state_bytes
        for text in (one.space.architectures)
    ]
    assert sizes == [*sorted(sizes[:3]), *sorted(sizes[3:])]
    assert len(set(sizes)) == 6


def test_what_only_reads_less_is_sized_by_what_it_reads(registry: Registry) -> None:
    (one,) = sweep_specs(spec(), registry, mixers=["moba(top_k=2)"], sizes=2)
    assert list(one.space.architectures) == ["moba(block_size=4, top_k=2)*2", "moba(block_size=16, top_k=2)*2"]


def test_what_nothing_sizes_is_trained_at_other_widths(registry: Registry) -> None:
    specs = sweep_specs(spec(), registry)
    found = listed(specs)
    assert found["recall-d32"] == found["recall-d128"] == ["full*2"]
    assert found["recall"][0] == "full*2"
    backbones = {one.model.d_model: one.model.backbone(vocab_size=33) for one in specs}
    costs = {
        width: CostModel(registry).cost(ArchSpec.parse("full*2", registry, model), 48).kv_bytes
        for width, model in backbones.items()
    }
    assert costs[32] * 2 == costs[64] == costs[128] // 2
    assert told(specs).startswith("6 architectures at 1 number of pairs, 6 trainings at most")
    assert trainings(specs) == 6


def test_a_head_dim_that_was_given_grows_with_the_width(registry: Registry) -> None:
    given = spec(model={"d_model": 64, "n_layers": 2, "n_heads": 2, "head_dim": 16, "channel_mixer": "none"})
    specs = sweep_specs(given, registry, mixers=["full"], sizes=2)
    assert {one.model.d_model: one.model.head_dim for one in specs} == {64: 16, 32: 8}


def test_values_that_the_spec_lists_are_taken(registry: Registry) -> None:
    given = spec(space={"mixers": ["sliding"], "sliding": {"window": [4, 9], "rope": [0.0]}})
    (one,) = sweep_specs(given, registry)
    assert list(one.space.architectures) == ["sliding(window=4, rope=0.0)*2", "sliding(window=9, rope=0.0)*2"]
    Problem.of(one, registry)


def test_a_list_of_architectures_is_taken_as_it_is(registry: Registry) -> None:
    given = spec(space={"pattern": "listed", "architectures": ["full", "sliding(window=4) full"]})
    (one,) = sweep_specs(given, registry, pairs=[2])
    assert list(one.space.architectures) == ["full", "sliding(window=4) full"]


def test_its_searches_can_be_posed_and_are_stored_as_they_are(registry: Registry) -> None:
    for one in sweep_specs(default_spec([4, 24]), registry, sizes=2):
        assert len(Problem.of(one, registry).tasks) == 2
        assert SearchSpec.from_dict(one.to_json()).to_json() == one.to_json()
        assert one.recipe.seeds == 2


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "too many pairs": ({}, {"pairs": [4, 20]}, "--pairs 20: .*pairs = 20 needs as many keys"),
    "pairs twice": ({}, {"pairs": [4, 4]}, "--pairs names 4 twice"),
    "mixers twice": ({}, {"mixers": ["full", "full"]}, "--mixers names full twice"),
    "no sizes": ({}, {"sizes": 0}, "--sizes 0: give 1 to 32"),
    "unknown mixer": ({}, {"mixers": ["slidin"]}, "slidin"),
    "no notation": ({}, {"mixers": ["full("]}, "expected the name of an option"),
    "too short a task": ({}, {"mixers": ["nsa"]}, r"nsa: nsa sees all of up to .* write smaller options"),
    "a task without pairs": ({"tasks": [{"name": "copying"}]}, {}, r'tasks\[0\]: the task "copying" has no number of'),
    "a matched list": (
        {"space": {"pattern": "listed", "architectures": ["full"]}, "compare": {"match": "state_read"}},
        {},
        'compare.match = "state_read" goes with `archsearch compare`, not with a sweep',
    ),
    "a value that never acts": (
        {"space": {"mixers": ["sliding"], "sliding": {"window": [4, 48]}}},
        {},
        "space.sliding: with window = 48 it would not be trained: .*drop the value",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_swept_is_refused(case: tuple[dict[str, Any], dict[str, Any], str], registry: Registry) -> None:
    tables, given, said = case
    with pytest.raises(ArchsearchError, match=said):
        sweep_specs(spec(**tables), registry, **given)


def test_lists_are_read_with_commas_outside_of_brackets() -> None:
    assert texts_of("--mixers", "full, moba(block_size=4, top_k=2),kda") == (
        "full",
        "moba(block_size=4, top_k=2)",
        "kda",
    )
    assert wholes_of("--pairs", "4,8, 16") == (4, 8, 16)
    assert wholes_of("--pairs", None) == ()
    for text in ("", "4,,8", "4,x", "0", "-4", "1.5", "9" * 30):
        with pytest.raises(SpecError, match="--pairs"):
            wholes_of("--pairs", text)
