"""The state space mixers are what their papers say, in every form; costs are those of what is multiplied."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from archsearch_plugins.ssm import SsmPlugin
from archsearch_plugins.ssm.fixed import Modes, fixed_recurrence
from archsearch_plugins.ssm.layer import SelectiveSpace
from archsearch_plugins.ssm.ops import Selected, selective_scan
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, tried
from archsearch.testing.laws.law import Law

PLUGIN = SsmPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
LAYER = LayerInfo(index=0, depth=2)


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def selected(tokens: int, rates: Tensor, *, dt: Tensor | None = None, dtype: torch.dtype = torch.float64) -> Selected:
    states, channels = rates.shape
    steps = drawn(2, tokens, channels, seed=1).abs() if dt is None else dt
    return Selected(
        u=drawn(2, tokens, channels, dtype=dtype),
        dt=steps.to(dtype),
        b=drawn(2, tokens, states, dtype=dtype, seed=2),
        c=drawn(2, tokens, states, dtype=dtype, seed=3),
        rate=rates.to(dtype),
    )


QUICK = {
    "forward_equals_repeated_step",
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "empty_packed_batch",
    "gradients_are_finite_and_reach_every_parameter",
    "params_equal_what_is_built",
    "state_allocates_the_bytes_it_promises",
    "state_is_all_that_decoding_keeps",
}
"""Laws that the default run tries; `test_ssm_laws` tries all, of all presets."""


@pytest.mark.parametrize("law", [pytest.param(law, id=law.name) for law in LAWS if law.name in QUICK])
def test_mamba1_keeps_the_quick_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, {**PLUGIN.presets["mamba1"], "state_dim": 4}))
    assert outcome.status in ("passed", "skipped"), outcome.text


def test_a_selective_scan_of_one_state_and_constant_steps_is_an_exponential_moving_average() -> None:
    u, decay = drawn(2, 50, 3), torch.tensor([0.3, 0.9, 0.999], dtype=torch.float64)
    given = Selected(
        u=u,
        dt=torch.ones_like(u),
        b=torch.ones(2, 50, 1, dtype=torch.float64),
        c=torch.ones(2, 50, 1, dtype=torch.float64),
        rate=decay.log()[None],
    )
    average, expected = torch.zeros(2, 3, dtype=torch.float64), []
    for u_t in u.unbind(1):
        average = decay * average + (1 - decay) * u_t
        expected.append(average)
    y, _ = selective_scan(given, u.new_zeros(2, 1, 3))
    torch.testing.assert_close((1 - decay) * y, torch.stack(expected, 1))


def test_a_selective_scan_that_selects_nothing_is_a_fixed_recurrence_of_real_states() -> None:
    """Mamba holds the input by Euler's rule, S4D by zero order: a factor of the read."""
    u, rate, c, dt = drawn(2, 70, 3), -drawn(4, 3, seed=1).abs(), drawn(4, 3, seed=2), 0.2
    modes = Modes(
        log_dt=torch.full((3,), math.log(dt), dtype=torch.float64),
        log_rate=(-rate).log().T,
        angle=None,
        read=(c * dt * rate / torch.expm1(dt * rate)).T,
    )
    y, last = fixed_recurrence(u, None, modes, want_state=True)
    for channel in range(3):
        own = slice(channel, channel + 1)
        given = Selected(
            u=u[..., own],
            dt=torch.full_like(u[..., own], dt),
            b=torch.ones(2, 70, 4, dtype=torch.float64),
            c=c[:, channel].expand(2, 70, 4),
            rate=rate[:, own],
        )
        chosen, held = selective_scan(given, u.new_zeros(2, 4, 1))
        torch.testing.assert_close(chosen, y[..., own])
        torch.testing.assert_close(held, dt * last[..., own])


@pytest.mark.parametrize("tokens", [1, 2, 37, 200])
def test_chunks_give_what_the_recurrence_gives_with_all_gradients(tokens: int) -> None:
    found = gradients(tokens, "chunkwise")
    for name, wanted in gradients(tokens, "reference").items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-9)


def gradients(tokens: int, impl: str) -> dict[str, Tensor]:
    given, state = selected(tokens, -drawn(4, 5, seed=4).abs()), drawn(2, 4, 5, seed=5)
    leaves = [x.requires_grad_() for x in (*given.tokens, given.rate, state)]
    first = torch.arange(tokens).expand(2, tokens) % 13 == 5
    y, last = selective_scan(given, state, first, impl=impl)
    total = (y * drawn(*y.shape, seed=6)).sum() + (last * drawn(*last.shape, seed=7)).sum()
    names = ("u", "dt", "b", "c", "rate", "state")
    return {"y": y, "last": last, **dict(zip(names, torch.autograd.grad(total, leaves), strict=True))}


def test_what_forgets_all_or_nothing_stays_exact_in_float32() -> None:
    """Log decays between -1000 and 0, in one sequence beside each other."""
    dt = torch.tensor([0.0, 1e-6, 1e-3, 1.0, 1000.0])[torch.arange(300) * 7 % 5][None, :, None].expand(2, 300, 4)
    rates = -torch.tensor([1.0, 0.5, 1e-4])[:, None].expand(3, 4)
    exact = selective_scan(selected(300, rates, dt=dt), drawn(2, 3, 4, seed=5), impl="reference")
    given = selected(300, rates, dt=dt, dtype=torch.float32)
    for leaf in given.tokens:
        leaf.requires_grad_()
    y, last = selective_scan(given, drawn(2, 3, 4, seed=5).float())
    for found, wanted in zip((y, last), exact, strict=True):
        off = (found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert off < 1e-5
    y.sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in given.tokens if leaf.grad is not None)


def test_no_bit_of_an_output_depends_on_a_later_token_or_another_sequence() -> None:
    for preset in ("mamba1", "s4d"):
        mixer = built(preset)
        x = drawn(3, 90, SHAPE.d_model, dtype=torch.float32)
        changed = x.clone()
        changed[:, 50:] += 1
        changed[1] = 7.0
        before, after = (mixer(given, ctx=Context())[0] for given in (x, changed))
        assert torch.equal(before[0, :50], after[0, :50])
        assert torch.equal(before[2, :50], after[2, :50])


@pytest.mark.parametrize("preset", ["s4d", "s4d-real"])
def test_s4d_is_the_convolution_by_its_kernel(preset: str) -> None:
    """K_l = C exp(l dt A) (exp(dt A) - 1) / A (arXiv 2206.11893, section 3), summed lag by lag in float64."""
    mixer, u = built(preset), drawn(2, 150, SHAPE.d_model)
    dt = mixer.log_dt.double().exp()[:, None]
    rate = -mixer.log_rate.double().exp()
    if preset == "s4d":
        rate, read = torch.complex(rate, mixer.angle.double()), torch.view_as_complex(mixer.read.double())
    else:
        read = mixer.read.double()
    taps = [(read * torch.exp(lag * dt * rate) * (torch.exp(dt * rate) - 1) / rate).sum(1) for lag in range(150)]
    kernel = torch.stack([2 * tap.real if tap.is_complex() else tap for tap in taps])  # [T, C]
    expected = torch.stack([(u[:, : t + 1] * kernel[: t + 1].flip(0)).sum(1) for t in range(150)], 1)
    y, _ = fixed_recurrence(u.float(), None, mixer._modes(), want_state=False)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-5)


def built(preset: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options({**PLUGIN.presets[preset], **options}), SHAPE, LAYER)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"start": "lin"}, r"start = lin with rule = selective.*set start = real"),
        ({"rule": "fixed", "expand": 2}, r"expand = 2 with rule = fixed.*leave expand out"),
        ({"rule": "fixed", "conv": 4}, r"conv = 4 with rule = fixed"),
        ({"rule": "fixed", "state_dim": 7}, r"state_dim = 7 with start = lin.*an even one"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        PLUGIN.parse_options(values)


@pytest.mark.parametrize("phase", ["train", "prefill"])
@pytest.mark.parametrize("context", [1, 20, 65, 150])
@pytest.mark.parametrize("preset", ["mamba1", "s4d", "s4d-real"])
def test_matrix_products_of_a_sequence(preset: str, context: int, phase: Any) -> None:
    """Those of the chunks written out row by row, so that no pair that a mask drops is multiplied."""
    options, mixer = PLUGIN.parse_options(PLUGIN.presets[preset]), built(preset)
    inner, states = options.inner(SHAPE), options.state_dim
    weights = [module.weight for module in mixer.modules() if isinstance(module, torch.nn.Linear)]
    with FlopCounterMode(display=False) as counter:
        for weight in weights:
            _ = torch.ones(context, weight.shape[1]) @ weight.T
        if options.rule == "selective":
            _ = torch.ones(context, 1, states) @ torch.ones(context, states, inner)
        else:
            fixed_products(context, inner, states, last=phase == "prefill")
    said = PLUGIN.flops(options, SHAPE, LAYER, phase=phase, context=context).matmul
    assert said == pytest.approx(counter.get_total_flops(), rel=0.05)


def fixed_products(context: int, channels: int, states: int, *, last: bool) -> None:
    sizes = [len(chunk) for chunk in torch.arange(context).split(64)]
    for index, size in enumerate(sizes):
        for row in range(size):
            _ = torch.ones(channels, 1, row + 1) @ torch.ones(channels, row + 1, 1)
        if index:
            _ = torch.ones(channels, size, states) @ torch.ones(channels, states, 1)
        if last or index < len(sizes) - 1:
            _ = torch.ones(channels, states, size) @ torch.ones(channels, size, 1)


def test_a_layer_of_extreme_weights_stays_finite() -> None:
    mixer: SelectiveSpace = built("mamba1")
    with torch.no_grad():
        mixer.A_log.fill_(1e4)
        mixer.dt.bias.fill_(1e6)
    x = drawn(1, 20, SHAPE.d_model, dtype=torch.float32).requires_grad_()
    mixer(x, ctx=Context())[0].sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in mixer.parameters() if weight.grad is not None)
