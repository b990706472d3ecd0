"""Additive forms of the linear mixers against the recurrences of their papers, token by token in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.additive.bonus import BonusCore
from archsearch_plugins.linear.additive.favor import Favor
from archsearch_plugins.linear.additive.normalised import ExponentialCore, NormalisedCore
from archsearch_plugins.linear.additive.shift import TokenShift, token_before
from archsearch_plugins.linear.core import Call, Core
from archsearch_plugins.linear.layer import LinearMixer
from archsearch_plugins.linear.tokens import Tokens
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = LinearPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
B, T, H, K, V = 2, 90, 2, 8, 6
Drawn = dict[str, Tensor]


def build(preset: str, *, index: int = 0, depth: int = 4, **more: Any) -> LinearMixer:
    torch.manual_seed(0)
    options = PLUGIN.parse_options({**PLUGIN.presets[preset], **more})
    return PLUGIN.build(options, SHAPE, LayerInfo(index=index, depth=depth))


def drawn(*, channel: bool = False, gate: float = 1.0) -> Drawn:
    """q, k, v, log decays and input gates of that size: float32 values in float64."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).double()

    shape = (B, T, H, K) if channel else (B, T, H)
    inputs = {"q": normal(B, T, H, K), "k": normal(B, T, H, K), "v": normal(B, T, H, V)}
    inputs |= {"log_decay": F.logsigmoid(normal(*shape) + 2), "more": gate * normal(B, T, H)}
    return {name: x.float().double() for name, x in inputs.items()}


def by_core(core: Core, inputs: Drawn) -> Tensor:
    tokens = Tokens(inputs["q"], inputs["k"], inputs["v"], log_decay=inputs["log_decay"])
    return core(tokens, Call(more=inputs["more"]))[0]  # type: ignore[no-any-return]


def assert_as_told(core: Core, told: Callable[[Drawn], Tensor], inputs: Drawn) -> None:
    """Outputs and gradients of the core in float32 are within 1e-5 (RMS ratio) of what is told in float64."""
    weight = torch.randn(B, T, H, V, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for run, dtype in ((lambda x: by_core(core, x), torch.float32), (told, torch.float64)):
        given = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
        o = run(given)
        o.backward(weight.to(o.dtype))
        results.append({"o": o.detach(), **{name: x.grad for name, x in given.items() if x.grad is not None}})
    found, wanted = results
    for name, right in wanted.items():
        ratio = (found[name].double() - right).square().mean().sqrt() / right.square().mean().sqrt()
        assert float(ratio) < 1e-5, name


def recurrence(inputs: Drawn, read: Callable[[Tensor, Tensor, int], Tensor], write: Tensor | None = None) -> Tensor:
    """S_t = a_t S_(t-1) + w_t k_t v_t^T; ``read`` is told S_(t-1), S_t and t."""
    k, v, state, outputs = inputs["k"], inputs["v"], torch.zeros(B, H, K, inputs["v"].shape[-1]).double(), []
    for t in range(T):
        decay = inputs["log_decay"][:, t].exp()
        decay = decay[..., None] if decay.dim() == 3 else decay[..., None, None]
        key = k[:, t] if write is None else k[:, t] * write[:, t, :, None]
        before, state = state, decay * state + key[..., None] * v[:, t, :, None]
        outputs.append(read(before, state, t))
    return torch.stack(outputs, 1)


def asked(state: Tensor, q: Tensor) -> Tensor:
    return torch.einsum("bhkv,bhk->bhv", state, q)


def test_gated_retention_is_retention_with_a_decay_that_tokens_say() -> None:
    """You Only Cache Once, arXiv 2405.05254, section 3.1: (Q K^T * D) V with D_nm the product of sigmoid(x W)^(1/16)
    after m and up to n."""
    mixer, x = build("gated-retention").double(), torch.randn(1, 70, 24).double()
    inputs = mixer._inputs(x, None, Context(), None)
    tokens, gate = inputs.tokens, F.linear(x, mixer.proj.weight).split(mixer.sizes, -1)[2]
    decay = gate.sigmoid() ** (1 / 16)
    pairs = torch.stack([torch.stack([decay[0, m + 1 : n + 1].prod(0) for m in range(70)]) for n in range(70)])
    scores = torch.einsum("nhk,mhk->nmh", tokens.q[0], tokens.k[0]) * pairs * torch.ones(70, 70).tril()[..., None]
    o = 8**-0.5 * torch.einsum("nmh,mhv->nhv", scores, tokens.v[0])
    assert_close(mixer(x, ctx=Context())[0], mixer._output(o[None].to(x.dtype), inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("index", [0, 1, 3])
def test_hgrn2_writes_what_its_forget_gate_leaves(index: int) -> None:
    """HGRN2, arXiv 2404.07904, section 3: S = Diag(f) S + (1 - f) v^T, f at least l / L in layer l of L."""
    mixer, x = build("hgrn2", index=index), 3 * torch.randn(2, 9, 24)
    tokens, forget = (
        mixer._inputs(x, None, Context(), None).tokens,
        F.linear(x, mixer.proj.weight).split(mixer.sizes, -1)[2],
    )
    expected = index / 4 + (1 - index / 4) * forget.sigmoid().unflatten(-1, (3, 8))
    assert tokens.log_decay is not None
    assert_close(tokens.log_decay.exp(), expected)
    assert_close(tokens.k, 1 - expected, rtol=1e-4, atol=1e-6)
    assert (tokens.log_decay.exp() >= index / 4).all()


def test_rwkv6_reads_before_it_writes_and_its_own_value_by_a_weight() -> None:
    """Eagle and Finch, arXiv 2404.05892, section 4: o_t = (S_(t-1) + Diag(u) k_t v_t^T)^T r_t."""
    core = BonusCore(K**-0.5, H, K)
    with torch.no_grad():
        core.bonus.copy_(torch.randn(H, K, generator=torch.Generator().manual_seed(2)))
    inputs = drawn(channel=True)

    def told(x: Drawn) -> Tensor:
        def read(before: Tensor, _: Tensor, t: int) -> Tensor:
            own = core.bonus.double()[..., None] * x["k"][:, t, :, :, None] * x["v"][:, t, :, None]
            return K**-0.5 * asked(before + own, x["q"][:, t])

        return recurrence(x, read)

    assert_as_told(core, told, inputs)


def test_rwkv6_with_a_bonus_of_1_and_no_decay_is_linear_attention() -> None:
    inputs = drawn(channel=True) | {"log_decay": torch.zeros(B, T, H, K).double()}
    assert_close(by_core(BonusCore(1.0, H, K), inputs), by_core(Core(1.0), inputs))


def test_rwkv6_mixes_each_token_with_the_one_before_as_both_say() -> None:
    """Arithmetic of ddlerp, arXiv 2404.05892, section 4, a role at a time."""
    torch.manual_seed(0)
    shift, x = TokenShift(6, 2, 0.25), torch.randn(1, 5, 6)
    earlier = token_before(x, None, None)
    assert_close(earlier, torch.cat((torch.zeros(1, 1, 6), x[:, :-1]), 1))
    low = torch.tanh((x + (earlier - x) * shift.mix) @ shift.down.weight.T).chunk(2, -1)
    for role, mixed in enumerate(shift(x, earlier)):
        assert_close(mixed, x + (earlier - x) * (shift.mixes[role] + low[role] @ shift.up[role]))


@pytest.mark.parametrize("gate", [1.0, 30.0], ids=["mild", "strong"])
def test_mlstm_is_the_recurrence_of_its_paper(gate: float) -> None:
    """xLSTM, arXiv 2405.04517, equations 19 to 27: C = f C + i v k^T, n = f n + i k, h = C q / max(|n . q|, 1); float64
    holds exp of the gates without a stabiliser."""

    def told(x: Drawn) -> Tensor:
        ones = x | {"v": torch.cat((x["v"], torch.ones(B, T, H, 1).double()), -1)}

        def read(_: Tensor, after: Tensor, t: int) -> Tensor:
            found = K**-0.5 * asked(after, x["q"][:, t])
            return found[..., :-1] / found[..., -1:].abs().clamp(min=1)

        return recurrence(ones, read, x["more"].exp())

    inputs = drawn(gate=gate)
    if gate > 1:  # what is divided by must not be a difference of large numbers
        inputs |= {name: inputs[name].abs() for name in ("q", "k")}
    assert_as_told(ExponentialCore(K**-0.5), told, inputs)


def test_mlstm_stands_gates_of_any_size() -> None:
    inputs = {name: x.float().requires_grad_() for name, x in drawn(gate=1e4).items()}
    o = by_core(ExponentialCore(1.0), inputs)
    o.square().sum().backward()
    assert o.isfinite().all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs.values())


def test_mlstm_with_gates_that_are_the_same_averages() -> None:
    """Forgetting nothing and writing all alike: linear attention with its normaliser."""
    inputs = drawn() | {"log_decay": torch.zeros(B, T, H).double(), "more": torch.full((B, T, H), 50.0).double()}
    inputs |= {name: inputs[name].abs() for name in ("q", "k")}
    assert_close(by_core(ExponentialCore(1.0), inputs), by_core(NormalisedCore(1.0), inputs))


def test_performer_estimates_softmax_attention_the_better_the_more_features() -> None:
    """Performer, arXiv 2009.14794, lemma 1: random features of softmax attention."""
    q, k, v = (torch.randn(1, 40, 2, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    q, k = q / 4, k / 4
    wanted = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True).transpose(1, 2)
    errors = []
    for features in (16, 256, 16384):
        made = Favor(8, features, seed=0)(q, k)
        o, _ = NormalisedCore(1.0)(Tokens(*made, v), Call())
        errors.append(float((o - wanted).square().mean().sqrt()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.003


def test_performer_draws_orthogonal_directions_of_its_seed() -> None:
    one, other = Favor(8, 20, seed=1), Favor(8, 20, seed=2)
    products = one.directions @ one.directions.T
    blocks = torch.block_diag(torch.ones(8, 8), torch.ones(8, 8), torch.ones(4, 4)) - torch.eye(20)
    assert_close(products * blocks, torch.zeros(20, 20), rtol=0, atol=1e-5)
    assert_close(Favor(8, 20, seed=1).directions, one.directions)
    assert not torch.equal(other.directions, one.directions)
    q = 100 * torch.randn(1, 3, 2, 8)
    assert all(made.isfinite().all() and (made > 0).all() for made in one(q, q))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"key": "forget"}, "set update = hebbian and decay = channel"),
        ({"feature_map": "favor", "decay": "channel"}, "set update = hebbian and decay to none"),
        ({"features": 8}, "features = 8 needs feature_map = favor"),
        ({"write": "exp", "normalizer": "max"}, "set update = hebbian and decay = head"),
        ({"write": "exp", "decay": "head"}, "write = exp, normalizer = none: write = exp and"),
        ({"normalizer": "sum"}, "normalizer = sum, update = hebbian, activation = silu: it divides"),
        ({"bonus": True, "update": "delta"}, "bonus = true, update = delta"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_options_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        PLUGIN.parse_options(values)
