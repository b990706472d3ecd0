"""Backbones that were drawn, carried up a ladder: what a size becomes, what stays, and a whole climb of two rungs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ladder_bench import REGISTRY, Bench, posed
from search_fakes import fake_spec

from archsearch.analysis.validity import on_backbone
from archsearch.arch import ModelSpec
from archsearch.errors import SpecError
from archsearch.search.ladder.cost import ladder_cost
from archsearch.search.ladder.drawn import values_on_rung
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.storage import Store

SMALL = {"d_model": 64, "n_heads": 2}
SPACE = {
    "mixers": ["dense", "window"],
    "dense": {"rope": 1.0},
    "window": {"window": [8]},
    "pattern": "periodic",
    "period": 1,
    "backbone": {"n_heads": [2, 4], "n_kv_heads": [1, 2]},
}
RUNGS = [{"keep": 6, "d_model": 32, "n_heads": 4, "n_layers": 4}, {"keep": 3, "n_layers": 5}]


def on_rung(drawn: dict[str, Any], now: dict[str, Any], **before: Any) -> dict[str, Any]:
    return values_on_rung(drawn, ModelSpec(**SMALL, **before), ModelSpec(**now, **before))


@pytest.mark.parametrize(
    ("drawn", "now", "expected"),
    [
        ({"n_heads": 4}, {"d_model": 128, "n_heads": 4}, {"n_heads": 8}),
        ({"n_heads": 4, "head_dim": 16}, {"d_model": 128, "n_heads": 4}, {"n_heads": 8, "head_dim": 16}),
        ({"n_heads": 4, "head_dim": 16}, {"d_model": 128, "n_heads": 2}, {"n_heads": 4, "head_dim": 32}),
        ({"n_kv_heads": 1}, {"d_model": 128, "n_heads": 4}, {"n_kv_heads": 2}),
        ({"ffn_dim": 96}, {"d_model": 128, "n_heads": 2}, {"ffn_dim": 192}),
        ({"ffn_dim": 100}, {"d_model": 96, "n_heads": 2}, {"ffn_dim": 144}),
        (
            {"channel_mixer": "moe", "short_conv": 2, "meta_tokens": 16, "shared_experts": 0},
            {"d_model": 128, "n_heads": 4},
            {"channel_mixer": "moe", "short_conv": 2, "meta_tokens": 16, "shared_experts": 0},
        ),
        ({"n_experts": 4, "experts_per_token": 1}, {"d_model": 64, "n_heads": 2, "n_experts": 16}, {"n_experts": 8}),
    ],
)
def test_sizes_keep_their_ratio_to_that_of_the_model_and_all_else_stays(
    drawn: dict[str, Any], now: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert on_rung(drawn, now) == drawn | expected


def test_a_size_that_the_model_gives_and_the_rung_does_not_stays() -> None:
    assert on_rung({"head_dim": 16}, {"d_model": 128, "n_heads": 4}, head_dim=32) == {"head_dim": 16}


def test_a_count_that_would_be_no_whole_number_is_refused_by_its_key() -> None:
    with pytest.raises(SpecError, match=r"space.backbone.n_heads = 1 keeps its ratio .* n_heads = 2 below and 3 here"):
        on_rung({"n_heads": 1}, {"d_model": 96, "n_heads": 3})


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('drawn')}/ladder.db") as store:
        bench = Bench(store)
        assert bench.climb(posed(RUNGS, space=SPACE)).name == "fakes.rung3"
        yield bench


def test_the_backbone_that_was_drawn_is_carried_up_with_the_pattern(climbed: Bench) -> None:
    below = climbed.store.search("fakes")
    first = {trial.digest: trial.arch["model"] for trial in climbed.store.trials(below.id)}
    spec = SearchSpec.from_dict(climbed.store.search("fakes.rung2").spec)
    assert spec.climbed is not None
    mine = [one for one in spec.climbed.kept if one.why != "reference"]
    assert len(mine) == len(spec.space.backbones) == 6
    trials = {trial.digest: trial.arch["model"] for trial in climbed.store.trials(climbed.store.search(spec.name).id)}
    for one in mine:
        before, now = first[one.below], trials[one.digest]
        assert (before["n_heads"], before["n_kv_heads"]) == (one.drawn["n_heads"], one.drawn["n_kv_heads"])
        assert (now["n_heads"], now["n_kv_heads"]) == (2 * before["n_heads"], 2 * before["n_kv_heads"])
        assert now["head_dim"] == 32 // now["n_heads"]
    assert len({tuple(one.drawn.values()) for one in mine}) > 1
    third = SearchSpec.from_dict(climbed.store.search("fakes.rung3").spec)
    assert third.climbed is not None
    carried = {one.digest: one.drawn for one in mine}
    assert all(one.drawn == carried[one.below] for one in third.climbed.kept if one.why != "reference")


def test_a_rung_of_several_backbones_reads_back_and_goes_on(climbed: Bench) -> None:
    spec = SearchSpec.from_dict(climbed.store.search("fakes.rung2").spec)
    space = Problem.of(spec, REGISTRY).space
    kept = [one.digest for one in spec.climbed.kept] if spec.climbed else []
    assert [arch.digest for arch in space.all()] == kept[: space.count()]
    assert [space.draw(_Chosen(params)).digest for params in space.in_order()] == kept[: space.count()]
    climbed.driven.clear()
    stored = SearchSpec.from_dict(climbed.store.search("fakes").spec)
    assert climbed.climb(Problem.of(stored, REGISTRY), resume=True).state == "complete"
    assert climbed.driven == []


class _Chosen:
    def __init__(self, params: Any) -> None:
        self.params = params

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        assert self.params[name] in choices
        return self.params[name]


def test_labels_of_one_pattern_on_two_backbones_differ(climbed: Bench) -> None:
    found = climbed.ladder()
    labels = [found.labels[one.key] for one in found.rungs[1].standings]
    assert len(labels) == len(set(labels))
    assert any(label.endswith("n_kv_heads = 1") for label in labels)
    assert on_backbone("full*4", {}) == "full*4"


@pytest.mark.parametrize(
    ("rung", "why"),
    [
        ({"d_model": 24, "n_heads": 3}, r"rung\[0\]: space.backbone.n_heads = 4 .* would be 6"),
        ({"n_kv_heads": 1}, r"rung\[0\]: space.backbone.n_kv_heads = 1 .* would be 0.5"),
    ],
)
def test_a_rung_that_a_drawn_backbone_cannot_be_carried_to_is_refused_first(
    rung: dict[str, Any], why: str, tmp_path: Path
) -> None:
    space = SPACE | {"backbone": {"n_heads": [2, 4], "n_kv_heads": [1, 2]}}
    spec = fake_spec(space=space, rung=[rung], model={"n_heads": 2})
    if "n_heads" in rung:
        spec["model"]["n_heads"] = 4
        why = why.replace("4 .* would be 6", "2 .* would be 1.5")
    with pytest.raises(SpecError, match=why):
        ladder_cost(Problem.of(SearchSpec.from_dict(spec), REGISTRY), None)
