"""Mixers made of mixers, and layers that know each other: notation, JSON, digests, versions, costs, refusals."""

from __future__ import annotations

import json
import pickle

import pytest
from stand_ins import Giving, ManyPlugin, PairPlugin, Taking

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import mixers_of, refusal
from archsearch.costs import CostModel
from archsearch.errors import NotationError, OptionsError, PluginError, SpecError
from archsearch.exercise import unexercised_layers
from archsearch.layer import LayerInfo
from archsearch.registry import Registry, load_registry

MODEL = ModelSpec(d_model=32, n_heads=2, channel_mixer="none", dtype="float32")


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-ins, a pair, many in one, a layer that gives and one that takes."""
    return load_registry([PairPlugin(), ManyPlugin(), Giving(), Taking()])


def parse(pattern: str, registry: Registry) -> ArchSpec:
    """An architecture of the small backbone."""
    return ArchSpec.parse(pattern, registry, MODEL)


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("pair", "pair"),
        ("pair(a=kda, b=sliding(window=4))", "pair"),
        ("pair(a=full, b=full(rope=0.0)) full", "pair-full full"),
        ("[pair(b=full(rope=0.5))*2 full]*2", "[pair(b=full(rope=0.5))*2 full]*2"),
        ("pair(a=pair(a=nsa, b=moba), b=nsa)", "pair(a=pair(a=nsa, b=moba), b=nsa)"),
        ("many(of=[kda*2 sliding(window=8)])", "many(of=[kda*2 sliding(window=8)])"),
        ("many(of=[full])", "many"),
        ('pair(a="moba")', "pair(a=moba)"),
    ],
)
def test_layers_in_options_are_written_and_read(text: str, shortest: str, registry: Registry) -> None:
    arch = parse(text, registry)
    assert arch.pattern(registry) == shortest
    assert parse(arch.pattern(), registry) == arch
    again = ArchSpec.from_json(json.loads(json.dumps(arch.to_json())), registry)
    assert (again, again.digest) == (arch, arch.digest)
    assert pickle.loads(pickle.dumps(arch)) == arch


def test_a_mixer_within_another_has_no_channel_mixer(registry: Registry) -> None:
    with pytest.raises(NotationError, match="a mixer within another has no channel mixer: drop ffn_dim = 3"):
        parse("pair(a=sliding(window=8):ffn_dim=3)", registry)
    assert parse("pair:ffn_dim=0", registry).pattern(registry) == "pair"


def test_a_digest_tells_what_a_mixer_is_made_of(registry: Registry) -> None:
    texts = ["pair", "pair(b=sliding(window=5))", "pair(a=full)", "pair(a=full, b=kda)", "many(of=[kda full])"]
    assert len({parse(text, registry).digest for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pair(a=nobody)", 'unknown mixer "nobody"'),
        ("pair(a=sliding(windw=4))", 'no option "windw" (did you mean "window"?)'),
        ("pair(a=3)", "a layer is written as notation"),
        ("pair(a=[kda full])", "a layer is written as notation"),
        ("pair(a=sliding(window=4)", "expected"),
        ("sliding(window=full(rope=0.0))", "window"),
        ("many(of=[])", "expected a mixer name"),
        ("full(rope=[", "expected a mixer name"),
        ("pair(a=" * 40 + "full" + ")" * 40, "nest more than 32 deep"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, said: str, registry: Registry) -> None:
    with pytest.raises(NotationError) as caught:
        parse(text, registry)
    assert said in str(caught.value)


def test_a_layer_by_name_needs_somebody_who_knows_it() -> None:
    with pytest.raises(OptionsError, match="needs the registry that knows it"):
        PairPlugin().parse_options({"a": "kda"})


def test_versions_sources_and_laws_follow_the_parts(registry: Registry) -> None:
    arch = parse("pair(a=pair(a=moba, b=full), b=nsa) kda", registry)
    assert mixers_of(arch.layers, registry) == ("pair", "moba", "full", "nsa", "linear")
    names = {part.name for part in registry.parts(mixers_of(arch.layers, registry), [])}
    assert {"mixer:pair", "mixer:moba", "mixer:linear", "core"} <= names


def test_costs_and_state_are_the_sums(registry: Registry) -> None:
    costs = CostModel(registry)
    parts = [costs.cost(parse(text, registry), 100).layers[0] for text in ("kda", "sliding(window=4)")]
    both = costs.cost(parse("pair", registry), 100).layers[0]
    for figure in ("mixer_params", "state_bytes", "kv_bytes"):
        assert getattr(both, figure) == sum(getattr(part, figure) for part in parts), figure
    assert both.traffic.read_bytes == sum(part.traffic.read_bytes for part in parts)
    state = PairPlugin().state(parse("pair", registry).layers[0].options, MODEL.shape, LayerInfo(resolver=registry))
    assert {tensor.name.partition(".")[0] for tensor in state} == {"0", "1"}
    assert {"1.k", "1.v"} <= {tensor.name for tensor in state}


def test_a_part_that_is_not_exercised_is_told(registry: Registry) -> None:
    arch = parse("pair(a=full, b=sliding(window=64))", registry)
    (found,) = unexercised_layers(arch, "mqar", 48, registry)
    assert (found.layer, found.dense_up_to) == ("pair-full(b=sliding(window=64))", 64)
    assert unexercised_layers(arch, "mqar", 65, registry) == ()


def test_meta_tokens_count_as_tokens(registry: Registry) -> None:
    longer = ModelSpec.read({**MODEL.model_dump(), "meta_tokens": 8})
    plain, meta = (ArchSpec.parse("full sliding(window=4)", registry, model) for model in (MODEL, longer))
    costs = CostModel(registry)
    assert costs.cost(meta, 100).state_bytes == costs.cost(plain, 108).state_bytes
    assert costs.cost(meta, 100).decode_read_bytes == costs.cost(plain, 108).decode_read_bytes
    assert costs.cost(meta, 100).params == costs.cost(plain, 100).params + 8 * 32
    assert meta.digest != plain.digest
    assert unexercised_layers(ArchSpec.parse("sliding(window=50)", registry, longer), "mqar", 48, registry) == ()


def test_an_arrangement_is_refused_with_the_reason(registry: Registry) -> None:
    reason = 'mixer "taking", layer 1: no layer before it gives anything: put giving before it'
    assert refusal(parse("full taking giving", registry), registry) == reason
    assert refusal(parse("giving full taking*2", registry), registry) is None
    assert refusal(parse("full many(of=[full taking])", registry), registry) == reason


def test_costs_kept_by_layer_know_who_reads_the_pattern(registry: Registry) -> None:
    costs = CostModel(registry)
    near, far, through = (
        costs.cost(parse(text, registry), 16).layers[2].decode_flops.elementwise
        for text in ("full giving taking", "giving full taking", "giving full many(of=[taking])")
    )
    assert (far - near, through - near) == (1.0, 1.0)


def test_the_pattern_is_told_only_to_who_says_that_it_reads_it(registry: Registry) -> None:
    info = parse("giving taking", registry).layer_info(1, registry)
    assert info.told_to(Taking(), Taking().parse_options({})).earlier[0].mixer == "giving"
    with pytest.raises(PluginError, match="must say reads_pattern = True"):
        _ = info.told_to(Giving(), Giving().parse_options({})).earlier


def test_a_refused_arrangement_is_not_built(registry: Registry) -> None:
    from archsearch.model import HybridLM

    with pytest.raises(SpecError, match=r"put giving before it: change the pattern taking giving"):
        HybridLM(parse("taking giving", registry), registry)


def test_an_unknown_option_is_told_before_a_layer_that_nobody_can_read() -> None:
    with pytest.raises(OptionsError, match='pair has no option "c"'):
        PairPlugin().parse_options({"c": "full"})


def test_a_mixer_made_of_itself_is_named(registry: Registry) -> None:
    class Snake(PairPlugin):
        name, presets = "snake", {}

        def parts(self, options):  # type: ignore[no-untyped-def]
            return (snake,)

    registry = load_registry([Snake()])
    snake = registry.layer("snake")
    with pytest.raises(PluginError, match="made of itself"):
        mixers_of([snake], registry)


def test_a_composite_whose_parts_are_not_there_is_reported() -> None:
    with pytest.raises(PluginError, match=r'plugin "pair" cannot be registered.*unknown mixer "kda"'):
        load_registry([PairPlugin()], environ={"ARCHSEARCH_LOAD_PLUGINS": "none"})
