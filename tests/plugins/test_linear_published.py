"""Options by which presets take the form of their papers: rotation, norms of heads, the first layer's values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.layer import LinearMixer
from torch import Tensor, nn
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, HybridLM
from archsearch.registry import Registry

PLUGIN = LinearPlugin()
H, K, V, D, T = 3, 8, 12, 24, 70
SHAPE = ModelShape(d_model=D, n_heads=H, n_kv_heads=H, head_dim=K, dtype="float64")
RETENTION = {"rope": 1.0, "value_dim": V, "output_norm": "layer"}
RWKV7 = {"value_dim": V, "first_values": True, "inner_gate": True, "gate_rank": 10, "output_norm": "group"}


def build(preset: str, *, index: int = 0, **more: Any) -> LinearMixer:
    """Of a preset, no parameter as it starts."""
    torch.manual_seed(index)
    options = PLUGIN.parse_options({**PLUGIN.presets[preset], **more})
    mixer = PLUGIN.build(options, SHAPE, LayerInfo(index=index, depth=4)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def tokens() -> Tensor:
    return torch.randn(1, T, D, generator=torch.Generator().manual_seed(9)).double()


@pytest.mark.parametrize("preset", ["retnet", "gated-retention"])
def test_rotated_retention_is_that_of_its_paper(preset: str) -> None:
    """RetNet, arXiv 2307.08621, equations 5 and 8: ((Q K^T) * D) V of queries times e^(i n theta) and keys times its
    conjugate; D of a decay that tokens say in arXiv 2405.05254, section 3.1. Group norm, and a swish gate."""
    mixer, x = build(preset, **RETENTION), tokens()
    q, k, v, gate, *decay = F.linear(x[0], mixer.proj.weight).split([H * K, H * K, H * V, *mixer.sizes[1:3]], -1)
    theta = 10000.0 ** (-torch.arange(0, K, 2).double() / K)
    turn = torch.polar(torch.ones(T, 1, K // 2).double(), torch.arange(T).double()[:, None, None] * theta)
    q, k = (torch.view_as_complex(z.contiguous().view(T, H, K // 2, 2)) for z in (q, k))
    scores = torch.einsum("nhc,mhc->nmh", q * turn, k.conj() * turn.conj()).real
    if preset == "retnet":
        log_decay = (1 - 2.0 ** (-5 - torch.arange(H).double())).log().expand(T, H)
    else:
        log_decay = F.logsigmoid(decay[0]) / 16
    sums = log_decay.cumsum(0)
    kept = (sums[:, None] - sums).exp() * torch.ones(T, T).tril()[..., None]
    o = torch.einsum("nmh,mhv->nhv", K**-0.5 * scores * kept, v.view(T, H, V))
    normed = nn.GroupNorm(H, H * V, eps=1e-6, affine=False)(o.flatten(1))
    wanted = (normed * F.silu(gate)) @ mixer.out.weight.T
    assert_close(mixer(x, ctx=Context())[0][0], wanted, rtol=1e-5, atol=1e-5)


ROTATED = (
    *("linear", "retnet", "lightning", "mamba2", "gated-retention", "mlstm", "performer", "log-linear-mamba2"),
    *("deltanet", "gated-deltanet", "log-linear-gated-deltanet", "olmo-hybrid", "gated-deltaproduct", "comba"),
)


@pytest.mark.parametrize("preset", [name for name in ROTATED if name != "performer"])
@torch.no_grad()
def test_what_a_rotated_layer_reads_depends_on_how_far_apart_tokens_stand(preset: str) -> None:
    mixer, x = build(preset, rope=1.0), tokens()
    assert mixer.rotary is not None
    places = torch.arange(T)[None]
    usual, moved, spread = (mixer(x, ctx=Context(positions=p))[0] for p in (places, places + 1000, 2 * places))
    assert_close(mixer(x, ctx=Context())[0], usual)
    assert_close(moved, usual, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(spread, usual, rtol=1e-2, atol=1e-2)
    mixer.rotary = None
    assert not torch.allclose(mixer(x, ctx=Context())[0], usual, rtol=1e-2, atol=1e-2)


@torch.no_grad()
def test_random_features_of_rotated_queries_and_keys_estimate_attention_with_rotation() -> None:
    torch.manual_seed(0)
    options = PLUGIN.parse_options({**PLUGIN.presets["performer"], "rope": 1.0, "features": 16384})
    mixer, x = PLUGIN.build(options, SHAPE, LayerInfo()).double(), tokens()
    assert mixer.rotary is not None
    q, k, v = (one.view(1, T, H, K) for one in F.linear(x, mixer.proj.weight).chunk(3, -1))
    errors = []
    for places in (torch.arange(T)[None], torch.zeros(1, T, dtype=torch.int64)):
        heads = (mixer.rotary(places, q), mixer.rotary(places, k), v)
        read = F.scaled_dot_product_attention(*(one.transpose(1, 2) for one in heads), is_causal=True)
        wanted = mixer.out(read.transpose(1, 2).flatten(2))
        errors.append(float((mixer(x, ctx=Context())[0] - wanted).norm() / wanted.norm()))
    assert errors[0] < 0.05
    assert errors[1] > 4 * errors[0]


def test_a_share_of_the_channels_is_rotated() -> None:
    mixer, x = build("retnet", rope=0.5), tokens()
    plain = build("retnet")._inputs(x, None, Context(), None).tokens
    turned = mixer._inputs(x, None, Context(), None).tokens
    for one, other in ((plain.q, turned.q), (plain.k, turned.k)):
        assert_close(one[..., K // 2 :], other[..., K // 2 :])
        assert not torch.allclose(one[:, 1:, :, : K // 2], other[:, 1:, :, : K // 2])
        assert_close(one.norm(dim=-1), other.norm(dim=-1))


def test_other_presets_are_refused_a_rotation() -> None:
    refused = [name for name in PLUGIN.presets if name not in ROTATED]
    assert refused == ["gla", "hgrn2", "rwkv6", "mom", "kda", "kda-bounded", "gated-deltanet-2", "rwkv7"]
    for name in refused:
        with pytest.raises(OptionsError, match=r"rope"):
            PLUGIN.parse_options({**PLUGIN.presets[name], "rope": 1.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"decay": "channel"}, "choose decay = constant, head, none, or set rope = 0"),
        ({"update": "delta", "removal": "channel"}, "choose removal = feedback, key, or set rope = 0"),
        ({"bonus": True}, "choose bonus = false, or set rope = 0"),
        ({"output_bonus": True}, "choose output_bonus = false, or set rope = 0"),
        ({"memories": 2, "memories_used": 1}, "leave rope at the default"),
        ({"activation": "elu1", "normalizer": "sum"}, "set feature_map = favor or normalizer = none, or rope = 0"),
    ],
    ids=["decay", "removal", "bonus", "output-bonus", "memories", "normalizer"],
)
def test_a_rotation_beside_what_weighs_channels_apart_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        PLUGIN.parse_options({**values, "rope": 1.0})


def test_a_rotation_that_turns_no_pair_is_refused(installed: Registry) -> None:
    arch = ArchSpec.parse("retnet(rope=0.25, key_dim=4)", installed, ModelSpec(d_model=D, n_heads=H))
    assert "rope = 0.25 of key_dim = 4 turns no pair of channels: choose rope = 0.5" in str(refusal(arch, installed))


@pytest.mark.parametrize("kind", ["layer", "group"])
def test_norms_of_heads_are_group_norm(kind: str) -> None:
    mixer, x = build("rwkv6", output_norm=kind, norm_eps=64e-5, output_gate="none"), tokens()
    norm = nn.GroupNorm(H, H * K, eps=64e-5, affine=kind == "group").double()
    if kind == "group":
        norm.load_state_dict(mixer.norm.state_dict())  # type: ignore[union-attr]
    plain = build("rwkv6", output_norm="none", output_gate="none")
    plain.load_state_dict({name: value for name, value in mixer.state_dict().items() if "norm" not in name})
    plain.out = nn.Identity()  # type: ignore[assignment]
    wanted = mixer.out(norm(plain(x, ctx=Context())[0][0]))
    assert_close(mixer(x, ctx=Context())[0][0], wanted)


def rwkv7(mixer: LinearMixer, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """RWKV-7's layer of tokens `[T, D]` (arXiv 2503.14456, section 4), as its code has it: values `[T, H V]` mixed with
    those of the first layer, where there is one, and handed on as they are in it."""
    shift, decay, write, mixing = (getattr(mixer, name) for name in ("shift", "decay", "write", "first_values"))
    before = torch.cat((torch.zeros(1, D).double(), x[:-1]))
    read = [x + mu * (before - x) for mu in shift.mu]
    rows = mixer.proj.weight.split([H * K, H * K, H * V, *(size for size in mixer.sizes[1:] if size)])
    r, k, v, g, w, a = (one @ weight.T for one, weight in zip(read, rows, strict=True))
    if first is not None:
        v = torch.lerp(v, first, torch.sigmoid(read[2] @ mixing.down.weight.T @ mixing.up.weight.T + mixing.up.bias))
    w = torch.exp(-(torch.tensor(-0.5).double().exp()) * torch.sigmoid(w.tanh() @ decay.up.weight.T + decay.bias))
    a = torch.sigmoid(a @ write.up.weight.T + write.up.bias)
    kappa = F.normalize((k * write.removed).view(T, H, K), dim=-1)
    k = (k + k * (a - 1) * write.follows).view(T, H, K)
    r, w, a, values = r.view(T, H, K), w.view(T, H, K), a.view(T, H, K), v.view(T, H, V)
    state, outputs = torch.zeros(H, V, K).double(), []
    for t in range(T):
        removed = torch.einsum("hvk,hk->hv", state, -kappa[t])
        state = state * w[t][:, None] + torch.einsum("hv,hk->hvk", removed, kappa[t] * a[t])
        state = state + torch.einsum("hv,hk->hvk", values[t], k[t])
        outputs.append(torch.einsum("hvk,hk->hv", state, r[t]))
    norm = nn.GroupNorm(H, H * V, eps=K * mixer.options.norm_eps).double()
    norm.load_state_dict(mixer.norm.state_dict())  # type: ignore[union-attr]
    o = norm(torch.stack(outputs).flatten(1)) + ((r * k * mixer.bonus).sum(-1, keepdim=True) * values).flatten(1)
    o = o * (g.sigmoid() @ mixer.gate_up.weight.T)  # type: ignore[union-attr, operator]
    return o @ mixer.out.weight.T, v if first is None else first


def test_three_layers_of_rwkv7_are_those_of_its_paper() -> None:
    x, ctx, first = tokens(), Context(), None
    for index in range(3):
        mixer = build("rwkv7", index=index, norm_eps=1e-5, **RWKV7)
        assert mixer.gate_up is not None
        assert mixer.gate_up.bias is None
        wanted, first = rwkv7(mixer, x[0], first)
        found = mixer(x, ctx=ctx)[0]
        assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)  # lengths of keys, and gates in float32
        x = x + wanted[None]


@pytest.mark.parametrize(("index", "depth"), [(0, 1), (0, 4), (2, 4), (3, 4)])
def test_rwkv7_starts_channel_by_channel_as_its_code_does(index: int, depth: int) -> None:
    """Of the code of arXiv 2503.14456: mixtures, decays, rates, norms by the layer's place; maps orthogonal or 0."""
    torch.manual_seed(0)
    options = PLUGIN.parse_options({**PLUGIN.presets["rwkv7"], **RWKV7, "value_dim": K, "draws": "published"})
    mixer = PLUGIN.build(options, SHAPE, LayerInfo(index=index, depth=depth))
    late, left = index / max(depth - 1, 1), 1 - index / depth
    powers = [0.2, 0.7, 0.7, 0.2, 0.9, 0.9]
    wanted = [[1 - (i / D) ** (power * left) for i in range(D)] for power in powers]
    assert_close(mixer.shift.mu, torch.tensor(wanted))
    decay, rate, removed = [], [], []
    for i in range(H * K):
        linear, zigzag = i / (H * K - 1) - 0.5, (i % K - (K - 1) / 2) / ((K - 1) / 2)
        zigzag *= abs(zigzag)
        decay.append(-6 + 6 * (i / (H * K - 1)) ** (1 + late**0.3) + 0.5 + 2.5 * zigzag)
        rate.append(-0.19 + 0.3 * zigzag + 0.4 * linear)
        removed.append(0.71 - 0.1 * linear)
    for found, values in ((mixer.decay.bias, decay), (mixer.write.up.bias, rate), (mixer.write.removed, removed)):
        assert_close(found, torch.tensor(values))
    assert_close(mixer.write.follows, torch.full((H * K,), 1.02))
    assert_close(mixer.bonus, torch.full((H, K), -0.04))
    assert_close(mixer.norm.weight, torch.full((H * K,), ((index + 1) / depth) ** 0.7))
    *qkv, gate, decays, rates = mixer.proj.weight.split(mixer.roles)
    for weights, gain in zip(qkv, (1.0, 0.1, 1.0), strict=True):
        assert_close(weights @ weights.T, gain**2 * torch.eye(D))
    ups = [mixer.decay.up, mixer.write.up, mixer.gate_up]
    assert (mixer.first_values.up is None) == (index == 0)
    if index:
        ups.append(mixer.first_values.up)
        assert_close(mixer.first_values.up.bias, 0.73 - 0.4 * (torch.linspace(0, 1, H * K) - 0.5))
        assert not mixer.first_values.down.weight.any()
    for up in ups:
        outer, inner = up.weight.shape
        square = up.weight @ up.weight.T if inner > outer else up.weight.T @ up.weight
        assert_close(square, 0.01 * max(inner / outer, 1) * torch.eye(min(outer, inner)))
    assert not any(weights.any() for weights in (gate, decays, rates, mixer.out.weight))


def test_all_of_rwkv7_learns_from_its_published_start(installed: Registry) -> None:
    """Its last projection starts at 0, so that the first step is its alone."""
    model = ModelSpec(d_model=D, n_heads=H, head_dim=K, channel_mixer="none")
    text = "[rwkv7(first_values=true, inner_gate=true, output_norm=group, draws=published)]*2"
    torch.manual_seed(0)
    lm = HybridLM(ArchSpec.parse(text, installed, model), installed, vocab_size=11)
    start = {name: weights.detach().clone() for name, weights in lm.named_parameters()}
    optimizer, drawn = torch.optim.Adam(lm.parameters(), lr=0.01), torch.randint(11, (4, 30))
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(lm(drawn).flatten(0, 1), drawn.roll(1, 1).flatten()).backward()
        optimizer.step()
    assert [name for name, weights in lm.named_parameters() if torch.equal(weights, start[name])] == []


@pytest.mark.parametrize(
    ("preset", "more", "said"),
    [
        (
            "kda",
            {},
            "draws = published with decay_form = kda: beside draws only decay_form = rwkv7 is known, or set draws",
        ),
        ("rwkv7", {"static_shift": False}, "draws = published with static_shift = false"),
        ("gla", {}, 'draws="published" says nothing of decay_form="gla"'),
    ],
)
def test_the_published_start_is_that_of_rwkv7_alone(preset: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        PLUGIN.parse_options({**PLUGIN.presets[preset], **more, "draws": "published"})


def test_layers_between_leave_the_first_values_alone_and_a_step_hands_them_on(installed: Registry) -> None:
    torch.manual_seed(0)
    layer = "rwkv7(first_values=true)"
    backbone = ModelSpec(d_model=D, n_heads=H, vocab_size=30, value_residual="learned", channel_mixer="none")
    arch = ArchSpec.parse(
        f"full {layer} kda {layer} rwkv7(first_values=true, value_dim=16) {layer}", installed, backbone
    )
    model: Any = HybridLM(arch, installed).eval()
    assert [block.mixer.value_residual is None for block in model.blocks] == [False, True, False, True, True, True]
    ids, ctx = torch.randint(30, (2, 14)), Context()
    with torch.no_grad():
        whole = model(ids, ctx=ctx)
        logits, states = model.prefill(ids[:, :10], model.init_state(2, 14))
        for token in range(10, 14):
            assert_close(logits, whole[:, token - 1], rtol=1e-4, atol=1e-4)
            logits, states = model.step(ids[:, token], states)


def test_values_of_another_width_are_not_mixed_in() -> None:
    x, ctx = tokens(), Context()
    first, other, last = (
        build("rwkv7", index=at, **{**RWKV7, "value_dim": width}) for at, width in ((0, 6), (1, 9), (2, 9))
    )
    alone = other(x, ctx=Context())[0]
    first(x, ctx=ctx)
    assert_close(other(x, ctx=ctx)[0], alone)
    assert not torch.allclose(last(x, ctx=ctx)[0], last(x, ctx=Context())[0])


SHARED = ("linear", "mamba2", "mlstm", "log-linear-mamba2", "gated-deltanet", "kda", "gated-deltaproduct")


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("preset", SHARED)
@torch.no_grad()
def test_keys_that_heads_share_are_keys_of_each_that_are_alike(preset: str, heads: int) -> None:
    """Heads of q and k in turn: the groups of Mamba-2 (arXiv 2405.21060, section 7.2)."""
    shape = ModelShape(d_model=D, n_heads=6, n_kv_heads=6, head_dim=4, dtype="float64")
    plain = PLUGIN.presets[preset]
    one, all_apart = (
        PLUGIN.build(PLUGIN.parse_options({**plain, **more}), shape, LayerInfo(index=1, depth=4)).double()
        for more in ({"key_heads": heads}, {})
    )
    own = one.options.steps + 1

    def repeated(weight: Tensor) -> Tensor:
        """Rows of q, and of k of each step, those of a head for each head that has them."""
        keys, rest = weight.split([own * heads * 4, len(weight) - own * heads * 4])
        return torch.cat((keys.view(own, heads, 4, -1).repeat_interleave(6 // heads, 1).flatten(0, 2), rest))

    given = dict(one.state_dict())
    given["proj.weight"] = repeated(given["proj.weight"])
    if "conv.weight" in given:
        given["conv.weight"] = repeated(given["conv.weight"].T).T
    all_apart.load_state_dict(given)
    x = tokens()
    y, state = one(x, ctx=Context(want_state=True))
    assert_close(y, all_apart(x, ctx=Context())[0])
    other = all_apart(x, ctx=Context(want_state=True))[1]
    for _ in range(3):
        y, state = one.step(x[:, 0], state=state, ctx=Context())
        wanted, other = all_apart.step(x[:, 0], state=other, ctx=Context())
        assert_close(y, wanted)


def test_keys_that_do_not_divide_the_heads_are_refused(installed: Registry) -> None:
    arch = ArchSpec.parse("mamba2(key_heads=2)", installed, ModelSpec(d_model=D, n_heads=H))
    assert "key_heads = 2 does not divide n_heads = 3: choose a divisor, or 0" in str(refusal(arch, installed))
    with pytest.raises(
        OptionsError, match=r"key_heads = 1 with removal = \"rate\"|beside key_heads only removal = key"
    ):
        PLUGIN.parse_options({**PLUGIN.presets["rwkv7"], "output_bonus": False, "key_heads": 1})


def test_digests_of_layers_without_these_options_are_as_they_were(installed: Registry) -> None:
    pattern = "retnet gated-retention rwkv6 rwkv7 mamba2 mlstm hgrn2"
    assert ArchSpec.parse(pattern, installed).digest == "7691d93c1e51e867"
    layer = installed.layer("retnet(rope=0.5)")
    assert layer.to_json()["options"]["rope"] == 0.5
    assert "rope_base" not in layer.to_json()["options"]
