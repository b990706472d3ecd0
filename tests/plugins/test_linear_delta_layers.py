"""Layers of the delta rules: each preset token by token by its paper's equations, identities, a learned first state."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.layer import LinearMixer
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.substeps import interleaved
from archsearch_plugins.linear.tokens import Tokens
from torch import Tensor
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = LinearPlugin()
H, K, V, D = 3, 8, 6, 24
SHAPE = ModelShape(d_model=D, n_heads=H, n_kv_heads=H, head_dim=K, dtype="float64")


def build(values: dict[str, Any], *, seed: int = 0) -> LinearMixer:
    torch.manual_seed(seed)
    return PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LayerInfo(index=1, depth=4)).double()


def disturbed(preset: str) -> LinearMixer:
    """Of a preset, no parameter as it starts."""
    mixer = build({**PLUGIN.presets[preset], "value_dim": V})
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def convolved(mixer: LinearMixer, x: Tensor) -> tuple[Tensor, ...]:
    """q, k of length 1 and v, those of every step, and the features beside them, of x `[T, D]`."""
    assert mixer.conv is not None
    features = x @ mixer.proj.weight.T
    qkv, *beside = (part for part in features.split(mixer.sizes, -1) if part.shape[-1])
    taps = [F.pad(qkv, (0, 0, i, 0))[: len(x)] * weight for i, weight in enumerate(mixer.conv.weight)]
    mixed = F.silu(torch.stack(taps).sum(0))
    n = mixer.options.steps
    q, k, v = mixed.split([H * K, n * H * K, n * H * V], -1)
    return unit(q.view(-1, H, K)), unit(k.view(-1, n, H, K)), v.view(-1, n, H, V), *beside


def finished(mixer: LinearMixer, o: Tensor, gate: Tensor) -> Tensor:
    """Norm, gate and projection of outputs `[T, H, V]`."""
    assert mixer.norm is not None
    normed = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * mixer.norm.weight
    gate = gate if mixer.gate_up is None else gate @ mixer.gate_up.weight.T + mixer.gate_up.bias
    act = {"silu": F.silu, "sigmoid": torch.sigmoid}[mixer.options.output_gate]
    return (normed.flatten(1) * act(gate)) @ mixer.out.weight.T


def head_decay(mixer: LinearMixer, x: Tensor) -> Tensor:
    decay: Any = mixer.decay
    return torch.exp(-decay.A_log.exp() * F.softplus(x + decay.dt_bias))


def channel_decay(mixer: LinearMixer, x: Tensor) -> Tensor:
    decay: Any = mixer.decay
    x = x @ decay.up.weight.T
    if mixer.options.decay_form == "bounded":
        return torch.exp(-5 * torch.sigmoid(decay.A_log.exp()[:, None] * (x + decay.bias).view(-1, H, K)))
    return torch.exp(-decay.A_log.exp()[:, None] * F.softplus(x + decay.dt_bias).view(-1, H, K))


def delta_steps(mixer: LinearMixer, x: Tensor) -> Tensor:
    """Gated DeltaNet and KDA with beta up to 2 (arXiv 2411.12537) and several steps (arXiv 2502.10297, equation 6)."""
    q, k, v, gate, decay, beta = convolved(mixer, x)
    n, most = mixer.options.steps, mixer.options.beta_range
    beta = most * beta.sigmoid().view(-1, n, H, 1)
    a = head_decay(mixer, decay)[..., None] if mixer.options.decay == "head" else channel_decay(mixer, decay)
    state, outputs = torch.zeros(H, K, V, dtype=x.dtype), []
    for t in range(len(x)):
        state = a[t][..., None] * state
        for i in range(n):
            error = v[t, i] - torch.einsum("hkv,hk->hv", state, k[t, i])
            state = state + torch.einsum("hk,hv->hkv", k[t, i], beta[t, i] * error)
        outputs.append(torch.einsum("hkv,hk->hv", state, q[t]) * K**-0.5)
    return finished(mixer, torch.stack(outputs), gate)


def gated_deltanet_2(mixer: LinearMixer, x: Tensor) -> Tensor:
    """S = (I - k (b * k)^T) Diag(a) S + k (w * v)^T (arXiv 2605.22791)."""
    q, k, v, gate, decay, gates = convolved(mixer, x)
    b, w = (part.sigmoid().view(len(x), H, -1) for part in gates.split([H * K, H * V], -1))
    k, v, a, eye = k[:, 0], v[:, 0], channel_decay(mixer, decay), torch.eye(K, dtype=x.dtype)
    state, outputs = torch.zeros(H, K, V, dtype=x.dtype), []
    for t in range(len(x)):
        removed = eye - torch.einsum("hi,hj->hij", k[t], b[t] * k[t])
        state = removed @ (a[t][..., None] * state) + torch.einsum("hk,hv->hkv", k[t], w[t] * v[t])
        outputs.append(torch.einsum("hkv,hk->hv", state, q[t]) * K**-0.5)
    return finished(mixer, torch.stack(outputs), gate)


def comba(mixer: LinearMixer, x: Tensor) -> Tensor:
    """S = (a - s beta k k^T) S + k (beta v)^T, o = S^T (q - d k) (arXiv 2506.02475)."""
    q, k, v, gate, decay, beta = convolved(mixer, x)
    write: Any = mixer.write
    k, v, a, eye = k[:, 0], v[:, 0], head_decay(mixer, decay), torch.eye(K, dtype=x.dtype)
    q, beta = q - write.correction[:, None] * k, beta.sigmoid()
    state, outputs = torch.zeros(H, K, V, dtype=x.dtype), []
    for t in range(len(x)):
        taken = torch.einsum("h,hi,hj->hij", write.share.sigmoid() * beta[t], k[t], k[t])
        state = (a[t][:, None, None] * eye - taken) @ state
        state = state + torch.einsum("hk,hv->hkv", k[t], beta[t][:, None] * v[t])
        outputs.append(torch.einsum("hkv,hk->hv", state, q[t]) * K**-0.5)
    return finished(mixer, torch.stack(outputs), gate)


def rwkv7(mixer: LinearMixer, x: Tensor) -> Tensor:
    """S = (Diag(w) - (a kappa) kappa^T) S + k v^T with RWKV-7's token shift, keys and bonus (arXiv 2503.14456)."""
    shift, decay, write, norm = (getattr(mixer, name) for name in ("shift", "decay", "write", "norm"))
    before = torch.cat((torch.zeros(1, D, dtype=x.dtype), x[:-1]))
    rows = mixer.proj.weight.split([H * K, H * K, H * V, *(size for size in mixer.sizes[1:] if size)])
    mixed = [(x + mu * (before - x)) @ weight.T for mu, weight in zip(shift.mu, rows, strict=True)]
    r, k, v, gate, w, a = mixed
    w = torch.exp(-math.exp(-0.5) * torch.sigmoid(w.tanh() @ decay.up.weight.T + decay.bias)).view(-1, H, K)
    a = torch.sigmoid(a @ write.up.weight.T + write.up.bias)
    kappa = unit((k * write.removed).view(-1, H, K))
    k = (k * (1 + (a - 1) * write.follows)).view(-1, H, K)
    r, v, a = r.view(-1, H, K), v.view(-1, H, V), a.view(-1, H, K)
    state, outputs = torch.zeros(H, K, V, dtype=x.dtype), []
    for t in range(len(x)):
        transition = torch.diag_embed(w[t]) - torch.einsum("hi,hj->hij", a[t] * kappa[t], kappa[t])
        state = transition @ state + torch.einsum("hk,hv->hkv", k[t], v[t])
        outputs.append(torch.einsum("hkv,hk->hv", state, r[t]) * K**-0.5)
    o = torch.stack(outputs)
    o = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
    o = o + (r * mixer.bonus * k).sum(-1, keepdim=True) * v
    up: Any = mixer.gate_up
    return (o.flatten(1) * torch.sigmoid(gate @ up.weight.T + up.bias)) @ mixer.out.weight.T


REFERENCES = {
    "kda-bounded": delta_steps,
    "olmo-hybrid": delta_steps,
    "gated-deltaproduct": delta_steps,
    "gated-deltanet-2": gated_deltanet_2,
    "comba": comba,
    "rwkv7": rwkv7,
}


@pytest.mark.parametrize("preset", REFERENCES)
def test_the_layer_is_its_papers_equations_token_by_token(preset: str) -> None:
    mixer, x = disturbed(preset), torch.randn(1, 70, D, dtype=torch.float64, requires_grad=True)
    y, wanted = mixer(x, ctx=Context())[0][0], REFERENCES[preset](mixer, x[0])
    assert_close(y, wanted, rtol=1e-5, atol=1e-6)  # gates are computed in float32
    given = [x, *mixer.parameters()]
    weight = torch.randn_like(y)
    found, expected = (torch.autograd.grad(out, given, weight) for out in (y, wanted))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def drawn(T: int, heads: int = 2, seed: int = 0) -> Tokens:
    """Tokens without decay, keys of length 1 and beta in (0, 2)."""
    draw = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, T, heads, K, generator=draw, dtype=torch.float64) for _ in range(2))
    v, beta = torch.randn(2, T, heads, V, generator=draw), 2 * torch.rand(2, T, heads, generator=draw)
    return Tokens(q, F.normalize(k, dim=-1), v.double(), beta=beta.double())


def test_identity_of_deltaproduct_one_step_and_a_second_that_writes_nothing_are_deltanet() -> None:
    """arXiv 2502.10297: with one step it is DeltaNet; a step of beta = 0 leaves the state alone."""
    tokens = drawn(50)
    assert tokens.beta is not None
    o, last = linear_attention(tokens)
    assert_close(linear_attention(interleaved(tokens, 1))[0], o)
    twice = replace(
        tokens,
        k=torch.cat((tokens.k, tokens.k.flip(1)), 2),
        v=torch.cat((tokens.v, tokens.v.flip(1)), 2),
        beta=torch.cat((tokens.beta, torch.zeros_like(tokens.beta)), 2),
    )
    again, state = linear_attention(interleaved(twice, 2))
    assert_close(again[:, 1::2], o)
    assert_close(state, last)


@pytest.mark.parametrize("degrees", [90, 30])
def test_identity_of_deltaproduct_two_steps_of_beta_2_are_a_rotation(degrees: float) -> None:
    """arXiv 2502.10297, section 3: a product of two Householder matrices turns by twice the angle of their keys."""
    angle = math.radians(degrees)
    k = torch.zeros(1, 5, 2, K, dtype=torch.float64)
    k[:, :, 0, 0] = 1
    k[:, :, 1, 0], k[:, :, 1, 1] = math.cos(angle), math.sin(angle)
    v, q = torch.zeros(1, 5, 2, V, dtype=torch.float64), torch.zeros(1, 5, 1, K, dtype=torch.float64)
    start = torch.randn(1, 1, K, V, dtype=torch.float64)
    tokens = Tokens(q, k, v, beta=torch.full((1, 5, 2), 2.0, dtype=torch.float64))
    _, last = linear_attention(interleaved(tokens, 2), initial_state=start)
    turn = torch.eye(K, dtype=torch.float64)
    cosine, sine = math.cos(2 * angle), math.sin(2 * angle)
    turn[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]])
    assert_close(last[0, 0], torch.linalg.matrix_power(turn, 5) @ start[0, 0])


def test_identity_of_negative_eigenvalues_beta_2_tells_the_parity_of_ones() -> None:
    """arXiv 2411.12537: with beta = 2 a one flips the sign of the state, with beta = 0 a zero leaves it."""
    bits = torch.randint(2, (1, 130), generator=torch.Generator().manual_seed(0))
    k = torch.ones(1, 130, 1, 1, dtype=torch.float64)
    tokens = Tokens(k, k, torch.zeros_like(k), beta=2.0 * bits[..., None].double())
    o, _ = linear_attention(tokens, initial_state=torch.ones(1, 1, 1, 1, dtype=torch.float64))
    assert torch.equal(o[0, :, 0, 0], (-1.0) ** bits[0].cumsum(0).double())


def test_strengths_reach_beyond_one_and_stay_below_two() -> None:
    inputs = build({"update": "delta", "beta_range": 2})._inputs(
        20 * torch.randn(2, 40, D).double(), None, Context(), None
    )
    assert inputs.tokens.beta is not None
    assert ((inputs.tokens.beta >= 0) & (inputs.tokens.beta <= 2)).all()
    assert (inputs.tokens.beta > 1.5).any()


def test_no_decay_of_the_bounded_gate_is_below_its_bound() -> None:
    mixer = build(PLUGIN.presets["kda-bounded"])  # type: ignore[arg-type]
    log_decay = mixer._inputs(1e4 * torch.randn(2, 40, D).double(), None, Context(), None).tokens.log_decay
    assert log_decay is not None
    assert ((log_decay >= -5.0) & (log_decay <= 0.0)).all()
    start = mixer.decay(torch.zeros(1, K).double())[0]  # type: ignore[misc]
    assert ((start <= -0.99e-3) & (start >= -1.61)).all()


LEARNED = {"update": "delta", "decay": "channel", "initial_state": "learned", "static_shift": True}


def test_every_sequence_starts_with_the_learned_state() -> None:
    mixer = build(LEARNED)
    assert mixer.first is not None
    with torch.no_grad():
        mixer.first.normal_()
    x, bounds = torch.randn(1, 75, D, dtype=torch.float64), [0, 2, 2, 70, 75]
    packed, _ = mixer(x, ctx=Context(cu_seqlens=torch.tensor(bounds)))
    for start, end in ((0, 2), (2, 70), (70, 75)):
        alone, _ = mixer(x[:, start:end], ctx=Context())
        kept, _ = mixer(x[:, start:end], ctx=Context(want_state=True))
        assert_close(alone, packed[:, start:end])
        assert_close(kept, alone)
    y, _ = mixer.step(x[:, 0], state=mixer.init_state(1, 3), ctx=Context())
    assert_close(y, packed[:, 0])
    assert_close(mixer.init_state(2, 3).tensors["recurrent"][1, 0], mixer.first)
    (gradient,) = torch.autograd.grad(packed.square().sum(), mixer.first)
    assert gradient.any(-1).all()
    with torch.no_grad():
        mixer.first.zero_()
    plain = build({**LEARNED, "initial_state": "zero"})
    plain.load_state_dict({name: x for name, x in mixer.state_dict().items() if name != "first"})
    assert_close(mixer(x, ctx=Context())[0], plain(x, ctx=Context())[0])
