"""Mixers side by side: what they are joined to, heads that are shared out, and shares that cannot be."""

from __future__ import annotations

import pytest
import torch

from archsearch import cost
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import PluginError, SpecError
from archsearch.model import Context, HybridLM
from archsearch.registry import load_registry

_REGISTRY = load_registry()
_MODEL = ModelSpec(d_model=24, n_heads=6, n_kv_heads=2, head_dim=4, channel_mixer="none")


def arch_of(text: str, model: ModelSpec = _MODEL) -> ArchSpec:
    return ArchSpec(model=model, layers=(_REGISTRY.layer(text),))


def layer_of(text: str, model: ModelSpec = _MODEL) -> torch.nn.Module:
    torch.manual_seed(0)
    return HybridLM(arch_of(text, model), _REGISTRY, vocab_size=11).blocks[0].mixer  # type: ignore[union-attr, return-value]


def norm(y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return scale * y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("join", ["mean", "sum", "gate"])
@pytest.mark.parametrize("more", ["", ", more=[retnet conv]"], ids=["two", "four"])
def test_outputs_are_joined_as_it_says(join: str, more: str) -> None:
    layer, x = layer_of(f"parallel(a=full, b=sliding(window=3), join={join}{more})"), torch.randn(2, 7, 24)
    outputs = [part(x, ctx=Context())[0] for part in layer.parts]  # type: ignore[union-attr]
    if join == "sum":
        wanted = sum(outputs, torch.zeros(2, 7, 24))
    else:
        torch.nn.init.normal_(layer.scales)  # type: ignore[arg-type]
        first, *others = (norm(y, s) for y, s in zip(outputs, layer.scales, strict=True))  # type: ignore[arg-type]
        wanted = first
        for other in others:
            wanted = wanted * torch.sigmoid(other) if join == "gate" else wanted + other
        wanted = wanted / len(outputs) if join == "mean" else wanted
    torch.testing.assert_close(layer(x, ctx=Context())[0], wanted)


@torch.no_grad()
def test_hymba_with_one_projection_is_that_of_its_paper() -> None:
    """Hymba, arXiv 2411.13676, section 2: W (s_a norm(M_a x) + s_b norm(M_b x)) / 2 of its heads' outputs. Those come
    of layers whose own last projection is the identity."""
    layer, x, heads = layer_of("hymba(a=sliding(window=3), project=shared)"), torch.randn(2, 7, 24), []
    for name, part in zip(("sliding(window=3)", "mamba2"), layer.parts, strict=True):  # type: ignore[arg-type]
        half = layer_of(name)
        half.load_state_dict(part.state_dict() | {"out.weight": torch.eye(24)})
        heads.append(half(x, ctx=Context())[0])
    torch.nn.init.normal_(layer.scales)  # type: ignore[arg-type]
    joined = (norm(heads[0], layer.scales[0]) + norm(heads[1], layer.scales[1])) / 2  # type: ignore[index]
    torch.testing.assert_close(layer(x, ctx=Context())[0], joined @ layer.out.weight.T)  # type: ignore[union-attr, operator]


@torch.no_grad()
def test_a_projection_of_a_sum_is_the_sum_of_projections_that_are_alike() -> None:
    each, shared = (layer_of(f"parallel(a=full, b=kda, join=sum{more})") for more in ("", ", project=shared"))
    weights = {name: x for name, x in each.state_dict().items() if not name.endswith(".out.weight")}
    shared.load_state_dict(weights, strict=False)
    for part in each.parts:  # type: ignore[union-attr]
        part.out.weight.copy_(shared.out.weight)  # type: ignore[union-attr, arg-type]
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(shared(x, ctx=Context())[0], each(x, ctx=Context())[0])


@torch.no_grad()
@pytest.mark.parametrize(
    "text",
    [
        *("full(output_gate=true)", "path", "deltaformer", "sliding-sink(window=3)"),
        *("kda(value_dim=5)", "mom", "mamba1", "mamba3", "mamba3(rank=2)", "ttt-linear", "titans"),
    ],
)
def test_what_is_handed_out_is_what_the_last_projection_reads(text: str) -> None:
    whole, ended, x = layer_of(text).eval(), layer_of(text).eval(), torch.randn(2, 7, 24)
    spec = _REGISTRY.layer(text)
    channels = _REGISTRY.mixer(spec.mixer).hands_out(spec.options, _MODEL.shape)
    ended.hand_out(channels)  # type: ignore[operator]
    wanted, found = whole(x, ctx=Context())[0], ended(x, ctx=Context())[0]
    assert found.shape == (2, 7, channels)
    torch.testing.assert_close(found @ whole.out.weight.T, wanted)  # type: ignore[union-attr, operator]
    one, _ = ended.step(x[:, 0], state=ended.init_state(2, 1), ctx=Context())  # type: ignore[operator]
    torch.testing.assert_close(one, found[:, 0], rtol=1e-4, atol=1e-5)


def test_one_projection_is_counted_once() -> None:
    each, shared = (cost(arch_of(f"hymba{more}"), context=500) for more in ("", "(project=shared)"))
    assert each.params - shared.params == 24 * 24
    built = layer_of("hymba(project=shared)")
    assert shared.layers[0].mixer_params == sum(weights.numel() for weights in built.parameters())
    assert each.layers[0].decode_flops.matmul - shared.layers[0].decode_flops.matmul == 2 * 24 * 24


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hymba(b=s4d, project=shared)", "project = shared with ssm, which ends in no projection of its own: choose"),
        ("hymba(a=hymba, project=shared)", "project = shared with parallel, which ends in no projection of its own"),
        ("hymba(b=mamba2(value_dim=8), project=shared)", "not 24 of sliding, 48 of linear: choose sizes that agree"),
    ],
)
def test_mixers_that_cannot_share_a_projection_are_refused_before_training(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        HybridLM(arch_of(text), _REGISTRY, vocab_size=11)


def test_a_layer_that_does_not_end_as_its_plugin_says_is_named() -> None:
    with pytest.raises(
        PluginError, match=r'mixer "full": hands_out\(\) gave 23: its layer must have a torch.nn.Linear'
    ):
        layer_of("full").hand_out(23)  # type: ignore[operator]


def test_heads_that_are_shared_out_are_those_of_one_layer() -> None:
    """Half of the heads in each of two full layers, summed, is the full layer of all heads."""
    whole, split = layer_of("full"), layer_of("parallel(a=full, b=full, join=sum, share=0.5)")
    heads, keys, values = whole.qkv.weight.unflatten(0, (-1, 4)).split([6, 2, 2])  # type: ignore[union-attr, operator]
    with torch.no_grad():
        for index, part in enumerate(split.parts):  # type: ignore[arg-type]
            own = (heads[3 * index : 3 * index + 3], keys[index : index + 1], values[index : index + 1])
            part.qkv.weight.copy_(torch.cat(own).flatten(0, 1))
            part.out.weight.copy_(whole.out.weight[:, 12 * index : 12 * index + 12])  # type: ignore[union-attr, index]
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(split(x, ctx=Context())[0], whole(x, ctx=Context())[0])
    one, two = (cost(arch_of(text), context=64) for text in ("full", "parallel(a=full, b=full, join=sum, share=0.5)"))
    assert (two.params, two.state_bytes, two.decode_read_bytes) == (one.params, one.state_bytes, one.decode_read_bytes)


@pytest.mark.parametrize(
    ("share", "remedy"),
    [(0.25, "n_heads = 6 between 2 mixers leaves 1.5"), (1 / 3, "n_kv_heads = 2 between 2 mixers leaves 0.666667")],
)
def test_a_share_of_no_whole_heads_is_refused_before_training(share: float, remedy: str) -> None:
    with pytest.raises(SpecError, match=remedy):
        HybridLM(arch_of(f"parallel(share={share})"), _REGISTRY, vocab_size=11)


def test_costs_and_state_are_the_sums_of_the_parts() -> None:
    parts = [cost(arch_of(text), context=500) for text in ("full", "sliding(window=64)")]
    said = cost(arch_of("parallel(a=full, b=sliding(window=64), join=sum)"), context=500)
    assert said.state_bytes == sum(part.state_bytes for part in parts)
    assert said.decode_read_bytes == sum(part.decode_read_bytes for part in parts)
    mixers = sum(part.layers[0].mixer_params for part in parts)
    assert said.layers[0].mixer_params == mixers
    normed = cost(arch_of("parallel(a=full, b=sliding(window=64), join=mean)"), context=500)
    assert normed.layers[0].mixer_params == mixers + 2 * 24


def test_constants_of_falcon_h1_multiply_what_goes_in_and_comes_out() -> None:
    layer = layer_of("falcon-h1(a_in=0.5, b_in=1.25, a_out=0.75, b_out=0.25)")
    x = torch.randn(2, 7, 24)
    first, second = (part(scale * x, ctx=Context())[0] for part, scale in zip(layer.parts, (0.5, 1.25), strict=True))  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x, ctx=Context())[0], 0.75 * first + 0.25 * second)


def test_a_constant_of_an_output_that_is_normed_is_refused() -> None:
    with pytest.raises(SpecError, match='which norms outputs: use join="sum"'):
        _REGISTRY.layer("parallel(join=mean, a_out=0.5)")


@pytest.mark.parametrize("name", ["a_in", "b_in", "a_out", "b_out"])
def test_a_constant_that_leaves_nothing_of_a_mixer_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"{name} = 0 leaves nothing of its mixer: choose another number"):
        _REGISTRY.layer(f"falcon-h1({name}=0)")


def test_falcon_h1_and_hymba_are_what_they_say() -> None:
    for preset, join in (("falcon-h1", "sum"), ("hymba", "mean")):
        options = _REGISTRY.layer(preset).options
        assert options.join == join  # type: ignore[attr-defined]
        assert options.b == _REGISTRY.layer("mamba2")  # type: ignore[attr-defined]


HALVES = {
    "hymba": ("sliding", "mamba2", lambda a, b, s: (norm(a, s[0]) + norm(b, s[1])) / 2),
    "falcon-h1": ("full(rope=1.0)", "mamba2", lambda a, b, s: a + b),
    "titans-mag": ("sliding", "titans", lambda a, b, s: norm(a, s[0]) * torch.sigmoid(norm(b, s[1]))),
}
"""Each system's two halves, and what arXiv 2411.13676 (section 2), 2507.22448 (section 2) and 2501.00663 (section 4.2)
make of their outputs."""


@pytest.mark.parametrize("preset", HALVES)
def test_a_system_is_what_its_paper_makes_of_its_halves(preset: str) -> None:
    """By layers of the halves' own that have the weights of the parts."""
    one, other, told = HALVES[preset]
    layer, x = layer_of(preset), torch.randn(2, 7, 24)
    if layer.scales is not None:
        torch.nn.init.normal_(layer.scales)  # type: ignore[arg-type]
    outputs = []
    for name, part in zip((one, other), layer.parts, strict=True):  # type: ignore[arg-type]
        half = layer_of(name)
        half.load_state_dict(part.state_dict())
        outputs.append(half(x, ctx=Context())[0])
    found = layer(x, ctx=Context())[0]
    torch.testing.assert_close(found, told(*outputs, layer.scales))
    assert not torch.allclose(found, told(*reversed(outputs), layer.scales) / 2, atol=1e-3)


def test_resona_is_the_mean_of_a_recurrence_and_of_what_is_retrieved_from_blocks_of_the_context() -> None:
    """Each half sees what it should: without the recurrence a token depends on the chosen blocks alone."""
    options = _REGISTRY.layer("resona").options
    assert (options.a, options.b) == (_REGISTRY.layer("gated-deltanet"), _REGISTRY.layer("moba"))  # type: ignore[attr-defined]
    layer = layer_of("parallel(a=gated-deltanet, b=moba(block_size=4, top_k=2), join=mean)")
    x = torch.randn(1, 24, 24, requires_grad=True)
    with torch.no_grad():
        layer.scales[0].zero_()  # type: ignore[index, operator, union-attr]
    (seen,) = torch.autograd.grad(layer(x, ctx=Context())[0][0, -1].square().sum(), x)
    blocks = (seen[0].abs().amax(-1) > 0).unflatten(0, (6, 4)).any(1)
    assert blocks[-1]
    assert 2 <= blocks.sum() < 6
    with torch.no_grad():
        layer.scales[0].fill_(1.0)  # type: ignore[index, operator, union-attr]
    (seen,) = torch.autograd.grad(layer(x, ctx=Context())[0][0, -1].square().sum(), x)
    assert (seen[0].abs().amax(-1) > 0).all()
