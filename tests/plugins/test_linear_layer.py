"""The layer of the linear mixer: its laws for every preset, and each paper's decay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.gates import initial_A_log, initial_dt_bias
from archsearch_plugins.linear.layer import LinearMixer
from archsearch_plugins.linear.unit_length import unit_length
from torch.testing import assert_close

from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = LinearPlugin()
PRESETS = list(PLUGIN.presets)
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")


def build(preset: str, *, index: int = 0, depth: int = 4, seed: int = 0) -> LinearMixer:
    torch.manual_seed(seed)
    options = PLUGIN.parse_options(PLUGIN.presets[preset])
    return PLUGIN.build(options, SHAPE, LayerInfo(index=index, depth=depth))


@pytest.mark.parametrize("preset", PRESETS)
def test_forward_equals_steps_and_split_prefill(preset: str) -> None:
    mixer, x = build(preset), torch.randn(2, 75, 24)
    whole, final = mixer(x, ctx=Context(want_state=True))
    state, outputs = mixer.init_state(2, 75), []
    for t in range(75):
        y, state = mixer.step(x[:, t], state=state, ctx=Context())
        outputs.append(y)
    assert_close(torch.stack(outputs, 1), whole, rtol=0, atol=1e-4)
    first, split = mixer(x[:, :2], state=mixer.init_state(2, 75), ctx=Context())
    second, split = mixer(x[:, 2:70], state=split, ctx=Context())
    rest = []
    for t in range(70, 75):
        y, split = mixer.step(x[:, t], state=split, ctx=Context())
        rest.append(y[:, None])
    assert_close(torch.cat([first, second, *rest], 1), whole, rtol=0, atol=1e-4)
    for name, tensor in final.tensors.items():
        rows = [row for row in range(tensor.shape[1]) if 75 >> row & 1 or not mixer.options.levels]
        for other in (state, split):
            assert_close(other.tensors[name][:, rows], tensor[:, rows], rtol=1e-4, atol=1e-4)
    assert split.lengths.tolist() == final.lengths.tolist() == [75, 75]


@pytest.mark.parametrize("preset", PRESETS)
def test_packed_sequences_equal_each_apart(preset: str) -> None:
    mixer, x = build(preset), torch.randn(1, 90, 24)
    bounds = torch.tensor([0, 2, 2, 70, 90])
    packed, state = mixer(x, ctx=Context(cu_seqlens=bounds))
    apart = [mixer(x[:, start:end], ctx=Context())[0] for start, end in [(0, 2), (2, 70), (70, 90)]]
    assert_close(packed, torch.cat(apart, 1), rtol=0, atol=1e-5)
    assert state is None


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_is_trained(preset: str) -> None:
    mixer = build(preset)
    y, _ = mixer(torch.randn(2, 70, 24), ctx=Context())
    y.square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("preset", PRESETS)
def test_autocast_is_near_float32(preset: str) -> None:
    mixer, x = build(preset), torch.randn(2, 70, 24)
    expected, _ = mixer(x, ctx=Context())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, ctx=Context(want_state=True))
        mixer.step(x[:, 0], state=state, ctx=Context())
    difference = (y.float() - expected).detach()
    assert (
        difference.norm() < 0.05 * expected.detach().norm()
    )  # not of each: what cancels in a read is made large by the norm
    y.float().square().sum().backward()


def test_packed_sequences_with_a_state_are_refused() -> None:
    with pytest.raises(SpecError, match="give each sequence a row of the batch"):
        build("linear")(torch.randn(1, 4, 24), ctx=Context(cu_seqlens=torch.tensor([0, 4]), want_state=True))


def gates(preset: str, *, index: int = 0, depth: int = 4) -> tuple[LinearMixer, torch.Tensor]:
    """A mixer and the log decays that it gives to tokens `[2, 5]`."""
    mixer = build(preset, index=index, depth=depth)
    assert mixer.decay is not None
    log_decay, _ = mixer.decay(torch.randn(2, 5, mixer.decay.features))
    return mixer, log_decay.detach()


def test_retnet_decays_by_head() -> None:
    _, log_decay = gates("retnet")
    assert_close(log_decay.exp(), torch.tensor([1 - 2.0**-5, 1 - 2.0**-6, 1 - 2.0**-7]))


def test_lightning_decays_by_head_and_slower_by_layer() -> None:
    _, first = gates("lightning", index=0)
    _, last = gates("lightning", index=3)
    slopes = torch.tensor([2.0 ** (-8 / 3), 2.0 ** (-16 / 3), 2.0**-8])
    assert_close(first, -slopes * (1 + 1e-5))
    assert_close(last, -slopes * 1e-5, rtol=1e-4, atol=0)
    assert gates("lightning", depth=1)[1].isfinite().all()


def test_mamba2_starts_in_its_papers_ranges_and_writes_by_its_step_size() -> None:
    mixer = build("mamba2")
    step = F.softplus(mixer.decay.dt_bias)  # type: ignore[union-attr, arg-type]
    assert ((step > 0.0009) & (step < 0.11)).all()
    assert ((mixer.decay.A_log.exp() >= 1) & (mixer.decay.A_log.exp() <= 16)).all()  # type: ignore[union-attr, operator]
    log_decay, dt = mixer.decay(torch.zeros(1, 3))  # type: ignore[misc]
    assert_close(dt[0], step)
    assert_close(log_decay[0], -mixer.decay.A_log.exp() * step)  # type: ignore[union-attr, operator]
    inputs = mixer._inputs(torch.randn(1, 6, 24), None, Context(), None)
    tokens = inputs.tokens
    assert tokens.log_decay is not None
    assert_close(tokens.v / inputs.v, (tokens.log_decay / -mixer.decay.A_log.exp())[..., None].expand(1, 6, 3, 8))  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("heads", [1, 2, 16])
def test_every_layer_gets_slow_and_fast_heads(heads: int) -> None:
    torch.manual_seed(0)
    for _ in range(20):
        step = F.softplus(initial_dt_bias(heads, 3))
        share = (step / 1e-3).log() / math.log(100)
        assert ((share * heads).long().sort(0).values == torch.arange(heads)[:, None]).all()
        share = (initial_A_log(heads).exp() - 1) / 15
        assert ((share * heads).long().sort().values == torch.arange(heads)).all()


@pytest.mark.parametrize("preset", ["mamba2", "kda", "kda-bounded"])
def test_plain_draws_are_of_the_whole_range_for_each_head(preset: str) -> None:
    """As the papers' code draws: two heads of four are not bound to parts of the range of their own."""
    torch.manual_seed(0)
    found = []
    for draws in ("plain", "even"):
        options = PLUGIN.parse_options({**PLUGIN.presets[preset], "draws": draws})
        gates: list[Any] = [PLUGIN.build(options, SHAPE, LayerInfo()).decay for _ in range(60)]
        biases = torch.stack([getattr(one, "dt_bias", getattr(one, "bias", None)).view(3, -1)[:, 0] for one in gates])
        ranks = (biases.flatten().argsort().argsort() * 3 // 180).view(60, 3)  # of three equal parts of all drawn
        found.append(sum(len(set(row.tolist())) == 3 for row in ranks))
    plain, even = found
    assert plain < 30 < 50 < even


def test_transnormer_decays_slower_by_layer_and_not_at_all_after_the_last() -> None:
    """TransNormerLLM, arXiv 2307.14995, section 3.1: l of L, from 0 on."""
    options = PLUGIN.parse_options({**PLUGIN.presets["lightning"], "decay_form": "transnormer"})
    for index in range(4):
        decay = PLUGIN.build(options, SHAPE, LayerInfo(index=index, depth=4)).decay
        wanted = -torch.tensor([2.0 ** (-8 / 3), 2.0 ** (-16 / 3), 2.0**-8]) * (1 - index / 4)
        assert_close(decay(torch.zeros(1, 0))[0], wanted)  # type: ignore[misc]


def test_skip_adds_the_values() -> None:
    torch.manual_seed(0)
    options = PLUGIN.parse_options({"skip": True, "output_norm": "none", "output_gate": "none"})
    mixer, x = PLUGIN.build(options, SHAPE, LayerInfo()), torch.randn(1, 6, 24)
    y, _ = mixer(x, ctx=Context())
    assert mixer.skip is not None
    with torch.no_grad():
        mixer.skip.zero_()
    without, _ = mixer(x, ctx=Context())
    assert_close(y - without, mixer.out(mixer._inputs(x, None, Context(), None).v.flatten(2)))


def test_gla_is_a_slow_sigmoid_by_channel() -> None:
    mixer, log_decay = gates("gla")
    assert log_decay.shape == (2, 5, 3, 8)
    assert mixer.decay.features == 16  # type: ignore[union-attr]
    x = torch.randn(2, 5, 16)
    expected = mixer.decay.up(x).sigmoid().log() / 16  # type: ignore[union-attr, operator]
    assert_close(mixer.decay(x)[0], expected.view(2, 5, 3, 8))  # type: ignore[misc]


def test_kda_decays_by_channel_with_one_rate_a_head() -> None:
    mixer, log_decay = gates("kda")
    assert log_decay.shape == (2, 5, 3, 8)
    x = torch.randn(2, 5, 8)
    rate = F.softplus(mixer.decay.up(x) + mixer.decay.dt_bias).view(2, 5, 3, 8)  # type: ignore[union-attr, operator]
    expected = -mixer.decay.A_log.exp()[:, None] * rate  # type: ignore[union-attr, operator]
    assert_close(mixer.decay(x)[0], expected)  # type: ignore[misc]


def test_deltanet_writes_by_a_sigmoid_to_keys_of_length_one() -> None:
    inputs = build("deltanet")._inputs(torch.randn(2, 9, 24), None, Context(), None).tokens
    assert inputs.beta is not None
    assert ((inputs.beta > 0) & (inputs.beta < 1)).all()
    for x in (inputs.q, inputs.k):
        assert_close(x.norm(dim=-1), torch.ones(2, 9, 3))
    assert inputs.log_decay is None


@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.1, 1.0, 1e3], ids=str)
def test_unit_length_adds_to_the_sum_of_squares_as_the_papers_code_does(size: float) -> None:
    x = (size * torch.randn(3, 4, 8, dtype=torch.float64)).requires_grad_()
    expected = x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    assert_close(unit_length(x), expected)
    weight = torch.randn_like(x)
    found, wanted = (torch.autograd.grad(y, x, weight)[0] for y in (unit_length(x), expected))
    assert_close(found, wanted, rtol=1e-6, atol=1e-8 / size)
    assert_close(unit_length(x.float()).double(), expected, rtol=1e-6, atol=1e-7)
    assert_close(unit_length(x.bfloat16()).double(), expected, rtol=2e-2, atol=1e-2)


def test_zeros_have_no_length_and_a_finite_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    unit_length(x).sum().backward()
    assert not unit_length(x).any()
    assert_close(x.grad, torch.full((2, 8), 1e3))


EXTREMES = [0.0, 20.0, 25.0, 80.0, 89.0, 1e4, 3e38, torch.inf, -1e4, -3e38, -torch.inf]


@pytest.mark.parametrize("size", EXTREMES, ids=str)
@pytest.mark.parametrize("parameter", ["A_log", "dt_bias"])
@pytest.mark.parametrize("preset", ["mamba2", "gated-deltanet", "kda"])
def test_gates_are_finite_whatever_trained(preset: str, parameter: str, size: float) -> None:
    mixer = build(preset)
    with torch.no_grad():
        getattr(mixer.decay, parameter).fill_(size)
    y, _ = mixer(torch.randn(2, 70, 24), ctx=Context())
    y.square().sum().backward()
    assert y.isfinite().all()
    for name, weight in mixer.named_parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all(), name


def test_bounds_leave_what_trains_alone_and_nan_shows() -> None:
    decay = build("mamba2").decay
    x = torch.randn(2, 5, 3, requires_grad=True)
    with torch.no_grad():
        decay.A_log.copy_(torch.tensor([19.0, 20.0, 21.0]))  # type: ignore[union-attr, operator]
    log_decay, step = decay(x)  # type: ignore[misc]
    assert_close(log_decay, -step * torch.tensor([19.0, 20.0, 20.0]).exp())  # type: ignore[operator]
    with torch.no_grad():
        decay.A_log.fill_(torch.nan)  # type: ignore[union-attr, operator]
    assert decay(x)[0].isnan().all()  # type: ignore[misc]
