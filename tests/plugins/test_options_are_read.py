"""An option that is taken is read: another value of it makes another layer, so that equal layers have equal digests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from archsearch_plugins.static.options import StaticOptions
from torch import Tensor

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.layer import LayerSpec
from archsearch.mixer import MixerPlugin
from archsearch.model import Context, HybridLM
from archsearch.notation import format_layer
from archsearch.options import Tunable
from archsearch.registry import load_registry

REGISTRY = load_registry()
COSTS = CostModel(REGISTRY)
MODEL = ModelSpec(d_model=32, n_heads=2, n_kv_heads=2, head_dim=16, channel_mixer="none")
CONTEXTS = (7, 100, 5000)
TOKENS = 70
SOURCES = {"shared": "shared-kv", "shared-index": "dsa-mla(shared_dim=4)"}
"""What stands before the mixers that take of an earlier layer."""
BUILT_IN = [plugin for plugin in REGISTRY.mixers() if type(plugin).__module__.startswith("archsearch_plugins.")]
SETS = [(plugin, {}, plugin.name) for plugin in BUILT_IN]
MORE = [
    (plugin, values, f"{plugin.name}-{name}")
    for plugin in BUILT_IN
    for name, values in {**plugin.presets, **plugin.conformance.get("cases", {})}.items()
    if values
]
"""Every preset and case of the built-in mixers, after their defaults."""


def others(plugin: MixerPlugin[Any], values: dict[str, Any], option: str) -> Iterator[LayerSpec]:
    """The layer with other values of an option that its checks allow, what searches choose among them."""
    field, now = plugin.options.model_fields[option], getattr(plugin.parse_options(values, REGISTRY), option)
    tried = [choice for meta in field.metadata if isinstance(meta, Tunable) for choice in meta.choices]
    if get_origin(field.annotation) is Literal:
        tried += get_args(field.annotation)
    elif isinstance(now, bool):
        tried.append(not now)
    elif isinstance(now, int | float):
        tried += [type(now)(value) for value in (2 * now, now + 1, now - 1, now / 2, 0, 1, 8, 0.5)]
    for value in dict.fromkeys(tried):
        try:
            layer = LayerSpec.make(plugin.name, REGISTRY, **{**values, option: value})
            if getattr(layer.options, option) != now and refusal(arch_of(layer), REGISTRY) is None:
                yield layer
        except SpecError:
            continue


def arch_of(layer: LayerSpec) -> ArchSpec:
    """The layer second of three, behind what it takes of."""
    before = REGISTRY.layer(SOURCES.get(layer.mixer, "none"))
    if layer.mixer == "shared":  # a reader's options are those of what it reads
        before = LayerSpec.make("shared-kv", REGISTRY, **layer.options.model_dump())
    return ArchSpec(model=MODEL, layers=(before, layer, REGISTRY.layer("none")))


def figures(arch: ArchSpec) -> list[Any]:
    """What the layer costs, at several contexts."""
    return [COSTS.cost(arch, context).layers[1] for context in CONTEXTS]


def behaviour(arch: ArchSpec) -> list[Tensor]:
    """How the layer starts, what it gives in training, what that teaches its input, and its losses, of fixed draws."""
    torch.manual_seed(0)
    model = HybridLM(arch, REGISTRY, vocab_size=11).train()
    start = [tensor.clone() for tensor in model.state_dict().values()]
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=draw))
    x, ctx = torch.randn(1, TOKENS, MODEL.d_model, generator=draw).requires_grad_(), Context()
    outputs = [block.mixer(x, ctx=ctx)[0] for block in model.blocks]  # type: ignore[operator, union-attr]
    y = outputs[1]
    slopes = torch.autograd.grad(y.square().sum(), x, retain_graph=True) if y.requires_grad else ()
    return [*start, y.detach(), *slopes, *(loss.detach() for loss in ctx.losses.values())]


def differ(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) != len(other) or not all(map(torch.equal, one, other))


def unread(plugin: MixerPlugin[Any], values: dict[str, Any]) -> list[str]:
    """Options of which other values are taken, and nothing is another."""
    arch = arch_of(LayerSpec.make(plugin.name, REGISTRY, **values))
    costs, known, found = figures(arch), list[list[Tensor]](), []
    for option in plugin.options.model_fields:
        changed = [arch_of(layer) for layer in others(plugin, values, option)]
        if not changed or any(figures(one) != costs for one in changed):
            continue
        known = known or [behaviour(arch)]
        if not any(differ(behaviour(one), known[0]) for one in changed):
            found.append(option)
    return found


@pytest.mark.parametrize(
    ("plugin", "values"),
    [
        *(pytest.param(plugin, values, id=name) for plugin, values, name in SETS),
        *(pytest.param(plugin, values, id=name, marks=pytest.mark.arena) for plugin, values, name in MORE),
    ],
)
def test_another_value_of_an_option_makes_another_layer(plugin: MixerPlugin[Any], values: dict[str, Any]) -> None:
    assert refusal(arch_of(LayerSpec.make(plugin.name, REGISTRY, **values)), REGISTRY) is None
    assert unread(plugin, values) == []


def test_an_option_that_is_taken_and_not_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StaticOptions, "unread", lambda self: {})
    plugin = next(plugin for plugin in BUILT_IN if plugin.name == "static")
    assert unread(plugin, {"random": 0}) == ["seed"]
    assert unread(plugin, {"random": 2}) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hca(index_heads=8)", "index_heads=8 says nothing of top_k=0: use top_k above 0, or index_heads=4"),
        (
            "topk(index_heads=8)",
            'index_heads=8 says nothing of scorer="attention": use scorer="relu", or index_heads=4',
        ),
        ("m3(index_heads=8)", 'index_heads=8 says nothing of scorer="group": use scorer="relu", or index_heads=4'),
        ("bigbird(random=0, seed=7)", "seed=7 says nothing of random=0: use random above 0, or seed=0"),
        (
            "full(rope=0, rope_base=500)",
            "rope_base=500.0 says nothing of rope=0: use rope above 0, or rope_base=10000.0",
        ),
        ("ttt-linear(expand=8)", 'expand=8 says nothing of network="linear": use network="mlp", or expand=4'),
        ("performer(norm_eps=1e-5)", 'norm_eps=1e-05 says nothing of output_norm="none": use output_norm="rms", or'),
    ],
)
def test_what_would_not_be_read_is_refused_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        REGISTRY.layer(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("titans(network=linear)", "titans(network=linear, expand=4)"),
        ("resona(a=titans(network=linear))", "resona(a=titans(network=linear, expand=4))"),
        ("hgrn2(output_norm=none)", "hgrn2(output_norm=none, norm_eps=1e-6)"),
    ],
)
def test_what_a_preset_says_is_left_where_a_written_option_has_it_unread(text: str, same: str) -> None:
    layer = REGISTRY.layer(text)
    assert layer == REGISTRY.layer(same) == REGISTRY.layer(format_layer(layer, REGISTRY))
