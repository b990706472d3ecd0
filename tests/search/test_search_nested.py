"""Layers in layers, and layers that depend on those around them: how a search draws, counts and refuses them."""

from __future__ import annotations

import random
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import model_validator
from search_fakes import Dense, Recurrent, Window, fake_registry, fake_spec

from archsearch.composite import CompositePlugin
from archsearch.errors import NothingFeasibleError, OptionsError, SpecError
from archsearch.mixer import Flops, Layer, LayerInfo, MixerOptions, ModelShape, Phase, Tunable
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.space import RandomDraw, ReplayDraw, Space
from archsearch.search.spec import SearchSpec
from archsearch.search.survey import Refused, nothing_feasible, survey


class BesideOptions(MixerOptions):
    """`a` and `b` are two mixers, not the same one."""

    a: Annotated[Layer, Tunable("recurrent", "window")] = "recurrent"  # type: ignore[assignment]
    b: Annotated[Layer | None, Tunable("dense", "window(window=8)", None)] = "dense"  # type: ignore[assignment]
    gate: Annotated[bool, Tunable(True, False)] = True

    @model_validator(mode="after")
    def _check(self) -> BesideOptions:
        if self.b is not None and self.a.mixer == self.b.mixer:
            raise ValueError("a and b are one mixer: take another")
        return self


class Beside(CompositePlugin[BesideOptions]):
    name, family, summary, options, api_version = "beside", "hybrid", "a fake of two", BesideOptions, 2
    presets: ClassVar = {"beside-dense": {"b": "dense(rope=0.0)", "gate": False}}

    def build(self, options: BesideOptions, shape: ModelShape, layer: LayerInfo) -> Any:
        raise NotImplementedError


class OverOptions(MixerOptions):
    of: Annotated[Layer, Tunable("beside", "window")] = "window"  # type: ignore[assignment]


class Over(Beside):
    name, presets = "over", {}
    options = OverOptions  # type: ignore[assignment]


class SelfOptions(MixerOptions):
    of: Annotated[Layer, Tunable("selfish", "window")] = "window"  # type: ignore[assignment]


class Selfish(Beside):
    name, presets = "selfish", {}
    options = SelfOptions  # type: ignore[assignment]


class OddOptions(MixerOptions):
    of: Annotated[Layer, Tunable("nobody", "window(window=4)")] = "window(window=4)"  # type: ignore[assignment]


class Odd(Beside):
    name, presets = "odd", {}
    options = OddOptions  # type: ignore[assignment]


class Reads(Dense):
    """Stands only behind `dense`, and not in the layer right after it."""

    name, reads_pattern = "reads", True

    def check(self, options: Any, shape: ModelShape, layer: LayerInfo) -> str | None:
        before = [earlier.mixer for earlier in layer.earlier]
        return None if "dense" in before else "nothing is before it to be read: put dense there"

    def flops(self, options: Any, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        if layer.earlier[-1].mixer == "dense":
            raise OptionsError(f"rope = {options.rope}: impossible right behind dense")
        return Flops(matmul=1.0)


class Late(Window):
    """Costs nothing that can be said in the first layer."""

    name = "late"

    def params(self, options: Any, shape: ModelShape, layer: LayerInfo) -> int:
        if layer.index == 0:
            raise OptionsError("the first layer is none of ours")
        return 0


class Cheat(Recurrent):
    name, presets, broken_laws = "cheat", {}, {"causal": "it looks ahead"}


def nested_registry() -> Registry:
    registry = fake_registry()
    for mixer in (Beside(), Over(), Selfish(), Odd(), Reads(), Late(), Cheat()):
        registry.add(mixer)
    return registry


REGISTRY = nested_registry()
SPACES: dict[str, dict[str, Any]] = {
    "nested": {"mixers": ["beside", "window"], "window": {"window": [4, 8]}},
    "narrowed": {"mixers": ["beside"], "beside": {"a": ["window(window=4)", "recurrent(norm=l2)"], "gate": True}},
    "one-name-twice": {"mixers": ["beside"], "beside": {"a": ["window(window=4)", "window(sinks=2)"], "b": ["dense"]}},
    "preset": {"mixers": ["beside-dense", "dense"]},
    "preset-as-part": {"mixers": ["beside"], "beside": {"a": ["retention", "deltanet"], "b": ["dense(rope=1.0)"]}},
    "two-deep": {"mixers": ["over"]},
    "periodic": {
        "mixers": ["beside", "dense"],
        "pattern": "periodic",
        "period": 2,
        "beside": {"a": "window(window=4)"},
    },
    "ratio": {"mixers": ["beside", "dense"], "pattern": "ratio", "ratios": [1, 2]},
}


def problem(mixers: dict[str, Any], n_layers: int = 2, **tables: Any) -> Problem:
    spec = SearchSpec.from_dict(fake_spec(space=mixers, model={"n_layers": n_layers}, **tables))
    return Problem.of(spec, REGISTRY)


def space(name: str, n_layers: int = 2) -> Space:
    return problem(SPACES[name], max(n_layers, 3) if name == "ratio" else n_layers).space


class Recorder(RandomDraw):
    """Random choices, recorded with what they were chosen from."""

    def __init__(self, seed: int) -> None:
        super().__init__(random.Random(seed))
        self.params: dict[str, Any] = {}
        self.choices: dict[str, tuple[Any, ...]] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.choices[name] = tuple(choices)
        self.params[name] = super().suggest_categorical(name, choices)
        return self.params[name]


def choices_of(searched: Space) -> dict[str, tuple[Any, ...]]:
    """Every parameter that draws meet, with its choices, which are always the same."""
    found: dict[str, tuple[Any, ...]] = {}
    for seed in range(400):
        recorder = Recorder(seed)
        arch = searched.draw(recorder)
        assert searched.draw(ReplayDraw(recorder.params)).digest == arch.digest
        for parameter, offered in recorder.choices.items():
            assert len(offered) > 1
            assert found.setdefault(parameter, offered) == offered
    return found


def test_parameters_of_a_layer_in_a_layer_are_named_by_their_path() -> None:
    assert choices_of(problem(SPACES["nested"], 1).space) == {
        "layer0.mixer": ("beside", "window"),
        "layer0.window.window": (4, 8),
        "layer0.beside.a": ("recurrent", "window"),
        "layer0.beside.a.recurrent.update": ("hebbian", "delta"),
        "layer0.beside.a.recurrent.norm": ("none", "l2", "rms"),
        "layer0.beside.a.recurrent.norm[l2|rms]": ("l2", "rms"),
        "layer0.beside.a.window.window": (4, 8, 64),
        "layer0.beside.b": ("dense", "window(window=8)", None),
        "layer0.beside.b[dense|None]": ("dense", None),
        "layer0.beside.b.dense.rope": (0.0, 1.0),
        "layer0.beside.gate": (True, False),
    }


def test_what_a_choice_writes_out_is_fixed_and_the_rest_is_searched() -> None:
    assert choices_of(problem(SPACES["narrowed"], 1).space) == {
        "layer0.beside.a": ("window(window=4)", "recurrent(norm=l2)"),
        "layer0.beside.a.recurrent.update": ("hebbian", "delta"),
        "layer0.beside.b": ("dense", "window(window=8)", None),
        "layer0.beside.b[dense|None]": ("dense", None),
        "layer0.beside.b.dense.rope": (0.0, 1.0),
    }


def test_two_choices_of_one_mixer_have_parameters_of_their_own() -> None:
    assert choices_of(problem(SPACES["one-name-twice"], 1).space) == {
        "layer0.beside.a": ("window(window=4)", "window(sinks=2)"),
        "layer0.beside.a.window(sinks=2).window": (4, 8, 64),
        "layer0.beside.b.dense.rope": (0.0, 1.0),
        "layer0.beside.gate": (True, False),
    }


def test_presets_fix_what_they_say_as_parts_too() -> None:
    assert choices_of(problem(SPACES["preset-as-part"], 1).space) == {
        "layer0.beside.a": ("retention", "deltanet"),
        "layer0.beside.a.retention.norm": ("none", "l2", "rms"),
        "layer0.beside.gate": (True, False),
    }


def test_layers_nest_as_deep_as_options_hold_them() -> None:
    found = choices_of(problem(SPACES["two-deep"], 1).space)
    assert found["layer0.over.of.beside.a.window.window"] == (4, 8, 64)
    assert found["layer0.over.of.beside.b.dense.rope"] == (0.0, 1.0)


@pytest.mark.parametrize("name", SPACES)
def test_the_count_is_the_number_of_distinct_digests(name: str) -> None:
    searched = space(name)
    found = [arch.digest for arch in searched.all()]
    assert len(found) == len(set(found)) == searched.count()


@pytest.mark.parametrize("name", SPACES)
def test_draws_reach_every_candidate_and_nothing_else(name: str) -> None:
    searched = space(name, 1) if name not in ("periodic", "ratio") else space(name)
    drawn = {searched.random(random.Random(seed)).digest for seed in range(8000)}
    every = {arch.digest for arch in searched.all()}
    assert drawn <= every
    assert len(drawn) >= 0.9 * len(every)
    choices_of(searched)


@pytest.mark.parametrize("name", [name for name in SPACES if name != "ratio"])
def test_choices_lead_to_every_pure_candidate(name: str) -> None:
    searched = space(name)
    found = {searched.draw(ReplayDraw(params)).layers for params in searched.pure()}
    assert found == {(layer,) * 2 for entry in searched.entries.values() for layer in entry.layers}


def test_impossible_combinations_are_never_drawn() -> None:
    searched = space("nested")
    for layer in searched.entries["beside"].layers:
        options: Any = layer.options
        assert options.b is None or options.a.mixer != options.b.mixer
        assert options.a.mixer != "recurrent" or (options.a.options.update, options.a.options.norm) != ("delta", "none")
    assert len(searched.entries["beside"].layers) == (5 * 4 + 3 * 3) * 2  # recurrent beside all, window beside two


def test_the_reference_is_the_first_that_was_written() -> None:
    reference = space("narrowed").entries["beside"].reference
    assert reference == REGISTRY.layer("beside(a=window(window=4))")
    assert [arch.pattern(REGISTRY) for arch in problem(SPACES["nested"]).references] == [
        "beside*2",
        "window(window=4)*2",
    ]


def test_a_part_that_is_not_installed_is_left_out_unless_it_was_asked_for() -> None:
    assert choices_of(problem({"mixers": ["odd", "dense"]}, 1).space).keys() == {"layer0.mixer", "layer0.dense.rope"}
    with pytest.raises(OptionsError, match=r"space\.odd\.of = 'nobody': .*unknown mixer \"nobody\""):
        problem({"mixers": ["odd"], "odd": {"of": ["nobody", "window"]}})


@pytest.mark.parametrize(
    ("narrowed", "said"),
    [
        ({"a": ["windows"]}, 'unknown mixer "windows" .did you mean "window"'),
        ({"a": ["window(widow=4)", "window"]}, r"space.beside.a = 'window\(widow=4\)': .*no option \"widow\""),
        ({"a": ["window("]}, "space.beside"),
        ({"a": ["window window"]}, "space.beside"),
        ({"a": ["window:easy"]}, "space.beside"),
        ({"a": [7]}, "a layer is written as notation"),
        ({"a": ["window"], "b": ["window"]}, "a and b are one mixer"),
        ({"c": ["window"]}, 'no option "c"'),
    ],
    ids=str,
)
def test_a_part_that_cannot_be_is_told_with_its_key(narrowed: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        problem({"mixers": ["beside"], "beside": narrowed})


def test_a_layer_that_may_hold_itself_must_be_written_out() -> None:
    with pytest.raises(SpecError, match=r'space\.selfish: the layer "selfish" is made of itself without end'):
        problem({"mixers": ["selfish"]})
    written = {"of": ["selfish(of=window)", "dense"]}
    found = problem({"mixers": ["selfish"], "selfish": written}, 1).space
    assert choices_of(found)["layer0.selfish.of"] == ("selfish(of=window)", "dense")


def test_what_a_choice_writes_out_may_need_what_is_searched() -> None:
    found = problem({"mixers": ["beside"], "beside": {"a": "recurrent(update=delta)", "b": "dense"}}, 1).space
    assert choices_of(found)["layer0.beside.a.recurrent.norm[l2|rms]"] == ("l2", "rms")


def test_a_spec_of_layers_in_layers_survives_json() -> None:
    spec = SearchSpec.from_dict(fake_spec(space=SPACES["narrowed"]))
    assert SearchSpec.from_dict(spec.to_json()) == spec


def test_a_part_that_sees_the_future_is_refused() -> None:
    with pytest.raises(SpecError, match=r'mixer "cheat" breaks the law "causal"'):
        problem({"mixers": ["beside"], "beside": {"a": ["recurrent", "cheat"]}})


# layers that depend on those around them


def test_a_pure_reference_that_cannot_stand_is_left_out() -> None:
    posed = problem({"mixers": ["dense", "reads"]}, 3)
    assert [arch.pattern(REGISTRY) for arch in posed.references] == ["dense*3"]
    with pytest.raises(SpecError, match=r'references\[1\] = "reads": mixer "reads", layer 0: nothing is before it'):
        problem({"mixers": ["dense", "reads"]}, 3, search={"references": ["dense", "reads"]})


def test_what_cannot_stand_as_it_does_is_infeasible_with_the_reason() -> None:
    posed = problem({"mixers": ["dense", "window", "reads"], "window": {"window": 8}, "reads": {"rope": 0.0}}, 3)
    found = {arch.pattern(REGISTRY): posed.judge(arch) for arch in posed.space.all()}
    alone = found["reads(rope=0.0) window*2"]
    assert alone.refusal == 'mixer "reads", layer 0: nothing is before it to be read: put dense there'
    near = found["dense reads(rope=0.0) window"]
    assert near.refusal == "rope = 0.0: impossible right behind dense"
    assert not near.trainable
    assert found["dense window reads(rope=0.0)"].trainable
    assert survey(posed).trainable == sum(verdict.trainable for verdict in found.values())


def test_a_reader_as_a_part_is_asked_nothing_without_its_layers() -> None:
    posed = problem({"mixers": ["dense", "beside"], "beside": {"a": "reads", "b": ["window(window=8)"]}}, 2)
    refused = {arch.pattern(REGISTRY): posed.judge(arch).refusal for arch in posed.space.all()}
    assert any(reason and "nothing is before it" in reason for reason in refused.values())
    assert any(reason and "impossible right behind dense" in reason for reason in refused.values())


def test_a_layer_that_only_the_first_place_rules_out_is_in_the_space() -> None:
    posed = problem({"mixers": ["late", "dense"], "late": {"window": 8}}, 2)
    assert [arch.pattern(REGISTRY) for arch in posed.references] == ["late*2", "dense*2"]
    assert posed.judge(posed.references[0]).refusal == "the first layer is none of ours"
    assert posed.space.count() == 9


def test_a_space_in_which_nothing_can_stand_says_why() -> None:
    posed = problem({"mixers": ["reads"]}, 2)
    looked = survey(posed)
    assert (looked.trainable, looked.within_budget, looked.tightest) == (0, 0.0, None)
    with pytest.raises(NothingFeasibleError, match=r"4 candidates can be trained: .* such as .*nothing is before it"):
        raise nothing_feasible(posed, looked.judged, looked.tightest, looked.refused)


def test_a_survey_tells_what_cannot_stand_apart_from_the_budget() -> None:
    posed = problem({"mixers": ["dense", "reads"], "dense": {"rope": 0.0}, "reads": {"rope": 0.0}}, 3)
    looked = survey(posed)
    assert (looked.judged, looked.trainable, looked.over_budget) == (8, 1, 0)  # dense everywhere
    assert looked.refused == Refused(count=7, reason="rope = 0.0: impossible right behind dense")
    assert looked.within_budget == 1 / 8
    assert looked.tightest is None


def test_where_some_cannot_stand_and_the_others_cost_too_much_both_are_told() -> None:
    space = {"mixers": ["dense", "reads"], "dense": {"rope": 0.0}, "reads": {"rope": 0.0}}
    posed = problem(space, 3, budget={"state_bytes": 100})
    looked = survey(posed)
    assert (looked.trainable, looked.over_budget) == (0, 1)
    said = r"none of 8 .*: 7 cannot stand as they do, such as rope .*; none of the others meets the budget: .* 100 B"
    with pytest.raises(NothingFeasibleError, match=said):
        raise nothing_feasible(posed, looked.judged, looked.tightest, looked.refused)
