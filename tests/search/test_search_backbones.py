"""Backbones that are searched, and the widths of layers: what is drawn, counted, refused, replayed and stored."""

from __future__ import annotations

import random
from typing import Any

import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.arch import ModelSpec
from archsearch.errors import SpecError
from archsearch.registry import load_registry
from archsearch.search.changes import check_growth
from archsearch.search.problem import Problem
from archsearch.search.sampler import Sampler
from archsearch.search.space import ReplayDraw, Space
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import survey
from archsearch.search.tables.backbone import BackboneChoices

REGISTRY = fake_registry()
MIXERS = {"mixers": ["dense", "window"], "dense": {"rope": 1.0}, "window": {"window": 8}}

SPACES: dict[str, tuple[dict[str, Any], int]] = {
    "heads": ({"backbone": {"n_heads": [2, 4], "n_kv_heads": [1, 2, 4]}}, 5),
    "channel mixers": ({"backbone": {"channel_mixer": ["none", "swiglu"], "ffn_dim": [16, 32]}}, 3),
    "experts": (
        {"backbone": {"channel_mixer": ["swiglu", "moe"], "n_experts": [2, 4], "experts_per_token": [1, 4]}},
        1 + 3,
    ),
    "tokens in front": ({"backbone": {"meta_tokens": [0, 4], "short_conv": [0, 4], "head_dim": 4}}, 4),
    "widths": ({"ffn_dim": [0, 16, 48]}, 1),
    "widths of units": ({"ffn_dim": [0, 16], "pattern": "periodic", "period": 2}, 1),
    "widths of a ratio": ({"ffn_dim": [16, 32], "pattern": "ratio", "ratios": [1, 2], "costly": ["dense"]}, 1),
    "both": ({"ffn_dim": [0, 16], "backbone": {"channel_mixer": ["swiglu", "moe"], "head_dim": [4, 8]}}, 4),
}


def read(space: dict[str, Any], **model: Any) -> SearchSpec:
    sizes = {"channel_mixer": "swiglu", "n_layers": 3, **model}
    return SearchSpec.from_dict(fake_spec(space={**MIXERS, **space}, model=sizes))


def problem(space: dict[str, Any], **model: Any) -> Problem:
    return Problem.of(read(space, **model), REGISTRY)


def space(name: str) -> Space:
    return problem(SPACES[name][0]).space


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


@pytest.mark.parametrize("name", SPACES)
def test_the_count_is_the_number_of_distinct_digests(name: str) -> None:
    searched = space(name)
    found = [arch.digest for arch in searched.all()]
    assert len(found) == len(set(found)) == searched.count()
    assert len(searched.backbones.all) == SPACES[name][1]


@pytest.mark.parametrize("name", SPACES)
def test_draws_are_candidates_that_replay_by_parameters_of_one_set_of_choices(name: str) -> None:
    rng, searched = random.Random(0), space(name)
    every = {arch.digest for arch in searched.all()}
    choices: dict[str, tuple[Any, ...]] = {}
    drawn = set()
    for _ in range(400):
        recorder = Recorder(rng)
        arch = searched.draw(recorder)
        assert arch.digest in every
        assert searched.draw(ReplayDraw(recorder.params)) == arch
        drawn.add((arch.model, *(layer.ffn_dim for layer in arch.layers)))
        for parameter, offered in recorder.choices.items():
            assert len(offered) > 1
            assert choices.setdefault(parameter, offered) == offered
    assert {model for model, *_ in drawn} == set(searched.backbones.models)


def test_a_layer_draws_its_width_with_its_mixer_and_the_backbone_is_one_gene() -> None:
    recorder = Recorder(random.Random(0))
    arch = space("both").draw(recorder)
    assert {"layer0.ffn_dim", "layer2.ffn_dim", "backbone.channel_mixer", "backbone.head_dim"} <= set(recorder.params)
    widths = [recorder.params[f"layer{index}.ffn_dim"] for index in range(3)]
    assert [layer.ffn_dim for layer in arch.layers] == widths
    assert arch.model.head_dim == recorder.params["backbone.head_dim"]


def test_what_follows_from_a_size_that_is_drawn_is_derived_again_unless_it_was_given() -> None:
    listed = {"backbone": {"n_heads": [2, 4]}}
    left_out = problem(listed).space.backbones.models
    assert [(model.n_heads, model.n_kv_heads, model.head_dim) for model in left_out] == [(2, 2, 8), (4, 4, 4)]
    given = problem(listed, n_kv_heads=2, head_dim=8).space.backbones.models
    assert [(model.n_heads, model.n_kv_heads, model.head_dim) for model in given] == [(2, 2, 8), (4, 2, 8)]


@pytest.mark.parametrize("name", SPACES)
def test_a_stored_spec_reads_back_to_the_same_candidates(name: str) -> None:
    spec = read(SPACES[name][0])
    again = SearchSpec.from_dict(spec.to_json())
    assert again.to_json() == spec.to_json()
    check_growth(again, spec, ())
    first, other = (Problem.of(one, REGISTRY).space for one in (spec, again))
    assert first.backbones == other.backbones
    assert [arch.digest for arch in first.all()] == [arch.digest for arch in other.all()]


def test_a_spec_without_a_searched_backbone_is_stored_as_before() -> None:
    stored = read({}).to_json()
    assert (stored["model"]["n_kv_heads"], stored["model"]["head_dim"], stored["model"]["ffn_dim"]) == (2, 8, 48)
    assert not {"backbone", "ffn_dim"} & stored["space"].keys()
    assert list(Recorded(read({})).params) == ["layer0.mixer", "layer1.mixer", "layer2.mixer"]


class Recorded:
    """The choices of one draw of a spec's space."""

    def __init__(self, spec: SearchSpec) -> None:
        recorder = Recorder(random.Random(0))
        Problem.of(spec, REGISTRY).space.draw(recorder)
        self.params = recorder.params


def test_the_cheapest_candidate_is_tried_first_where_nothing_is_known() -> None:
    for name in ("heads", "experts", "both"):
        posed = problem(SPACES[name][0])
        costs = {arch.digest: posed.judge(arch).costs["state_bytes@1024"] for arch in posed.space.all()}
        pure = [posed.space.draw(ReplayDraw(params)).digest for params in posed.space.pure()]
        assert min(map(costs.__getitem__, pure)) == min(costs.values())
    (first, *_) = problem(SPACES["both"][0]).space.pure()
    assert {value for name, value in first.items() if name.endswith("ffn_dim")} == {0}


def test_a_candidate_whose_width_does_not_fit_its_backbone_is_refused_with_the_reason() -> None:
    posed = problem({"ffn_dim": [15, 16], "backbone": {"experts_per_token": [1, 2]}}, channel_mixer="moe", n_experts=4)
    verdicts = [posed.judge(arch) for arch in posed.space.all()]
    refused = [verdict.reasons for verdict in verdicts if not verdict.trainable and verdict.refusal is not None]
    assert len(refused) == 2**3 * (2**3 - 1)  # two experts a token, and a layer of 15
    assert all("ffn_dim = 15: 2 experts of a token" in reason for (reason,) in refused)
    looked = survey(posed)
    assert (looked.candidates, looked.exhaustive) == (2 * 4**3, True)
    assert looked.refused is not None
    assert looked.refused.count == len(refused)


def of_the_arena(mixer: str, options: dict[str, list[Any]]) -> Problem:
    """One layer of a built-in mixer, four heads of 4 channels."""
    given = fake_spec(
        space={"mixers": [mixer], mixer: options},
        model={"d_model": 16, "n_heads": 4, "n_layers": 1, "channel_mixer": "none"},
        tasks=[{"name": "mqar", "setting": "easy"}],
        objectives={"maximize": ["recall"], "minimize": ["state_bytes"], "context": 1024},
    )
    return Problem.of(SearchSpec.from_dict(given), load_registry())


def test_a_candidate_whose_rotation_turns_nothing_is_infeasible_with_the_reason() -> None:
    posed = of_the_arena("full", {"rope": [0.0, 0.25, 1.0]})
    refused = [verdict.reasons for verdict in map(posed.judge, posed.space.all()) if not verdict.trainable]
    assert len(refused) == 1
    assert "rope = 0.25 of head_dim = 4 turns no pair of channels: choose rope = 0.5 at least" in refused[0][0]


def test_a_value_that_no_backbone_of_the_search_takes_is_refused_with_the_reason() -> None:
    with pytest.raises(
        SpecError, match=r"space.full.n_kv_heads = 3: n_kv_heads = 3 does not divide n_heads = 4: choose"
    ):
        of_the_arena("full", {"n_kv_heads": [2, 3]})


def test_references_stand_on_the_backbone_of_the_file() -> None:
    posed = problem({"backbone": {"head_dim": [4, 16]}, "ffn_dim": [0, 16]})
    assert {arch.model for arch in posed.references} == {posed.space.model}
    assert posed.space.model.head_dim == 8
    assert {layer.ffn_dim for arch in posed.references for layer in arch.layers} == {None}


def test_a_sampler_goes_on_from_candidates_of_several_backbones() -> None:
    posed = problem(SPACES["both"][0])
    first, again = (Sampler(posed.space, posed.objectives, posed.spec.search, seed=0) for _ in range(2))
    for _ in range(8):
        proposal = first.ask()
        verdict = posed.judge(proposal.arch)
        values = {"recall": 0.5, "state_bytes": verdict.costs["state_bytes@1024"]}
        first.scored(proposal.number, values, verdict)
        again.replay(proposal.params, values, verdict)
    assert again.ask_for(proposal.params).arch == proposal.arch


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "key": ({"backbone": {"head_dims": [4]}}, ['"space.backbone.head_dims"', 'did you mean "head_dim"']),
    "no value": ({"backbone": {"head_dim": []}}, ["space.backbone.head_dim = []", "at least one"]),
    "text": ({"backbone": {"head_dim": ["wide"]}}, ["space.backbone.head_dim", "wide"]),
    "true": ({"backbone": {"head_dim": True}}, ["space.backbone.head_dim", "True"]),
    "twice": ({"backbone": {"head_dim": [4, 4]}}, ["space.backbone.head_dim names 4 twice"]),
    "channel mixer": ({"backbone": {"channel_mixer": ["mo"]}}, ["space.backbone.channel_mixer", "swiglu"]),
    "beyond a bound": ({"backbone": {"head_dim": [4, 2**21]}}, ["space.backbone.head_dim = 2097152", "drop it"]),
    "goes with nothing": (
        {"backbone": {"n_heads": [2, 4], "n_kv_heads": [2, 3]}},
        ["n_kv_heads = 3 does not divide n_heads = 2", "drop it, or add values that go with it"],
    ),
    "changes nothing": (
        {"backbone": {"n_experts": [4, 8]}},
        ["space.backbone.n_experts = 8 changes nothing beside the other values"],
    ),
    "too many": (
        {"backbone": {"head_dim": list(range(1, 200)), "ffn_dim": list(range(1, 200))}},
        ["space.backbone has 39601 combinations, more than 10000"],
    ),
    "width": ({"ffn_dim": [-1]}, ["space.ffn_dim", "-1"]),
    "width twice": ({"ffn_dim": [8, 8]}, ["space.ffn_dim names 8 twice"]),
    "two widths": (
        {"ffn_dim": [8], "backbone": {"ffn_dim": [16]}},
        ["space.ffn_dim gives each layer its own width, and space.backbone.ffn_dim"],
    ),
    "width of none": (
        {"ffn_dim": [8], "backbone": {"channel_mixer": ["none", "swiglu"]}},
        ["space.ffn_dim is the width of a channel mixer", "a width of 0 is a layer without one"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_with_key_value_and_remedy(case: str) -> None:
    values, said = WRONG[case]
    with pytest.raises(SpecError) as caught:
        problem(values)
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize("key", ["backbone", "ffn_dim"])
def test_a_list_of_architectures_has_one_backbone(key: str) -> None:
    value: Any = {"head_dim": [4, 8]} if key == "backbone" else [8, 16]
    listed = {"pattern": "listed", "architectures": ["dense"], key: value}
    with pytest.raises(SpecError, match=f"space.{key} goes with patterns that are drawn"):
        SearchSpec.from_dict(fake_spec(space=listed))


def test_a_list_of_architectures_may_write_widths() -> None:
    texts = ["dense", "dense:ffn_dim=16", "[dense:ffn_dim=0 window]*2"]
    spec = fake_spec(space={"pattern": "listed", "architectures": texts}, model={"n_layers": 4, "channel_mixer": "moe"})
    posed = Problem.of(SearchSpec.from_dict(spec), REGISTRY)
    patterns = [arch.pattern(REGISTRY) for arch in posed.space.all()]
    assert patterns == ["dense*4", "[dense:ffn_dim=16]*4", "[dense:ffn_dim=0 window]*2"]


def test_the_keys_of_a_backbone_are_those_of_a_model() -> None:
    fixed = {"d_model", "dtype", "vocab_size"}
    assert set(BackboneChoices.model_fields) == set(ModelSpec.model_fields) - fixed
