"""Mamba-3's rule is what its paper says, in every form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from archsearch_plugins.ssm import SsmPlugin
from archsearch_plugins.ssm.heads import _turned
from archsearch_plugins.ssm.trapezoid import Written, trapezoidal_recurrence
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = SsmPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
LAYER = LayerInfo(index=0, depth=2)
B, T, H, N, P = 2, 75, 2, 4, 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written(share: Tensor | None = None, **other: Tensor) -> Written:
    dt = drawn(B, T, H, seed=3).abs()
    share = drawn(B, T, H, seed=4).sigmoid() if share is None else share
    given: dict[str, Tensor] = {
        "q": drawn(B, T, H, N),
        "k": drawn(B, T, H, N, seed=1),
        "v": drawn(B, T, H, P, seed=2),
        "log_decay": -dt * drawn(B, T, H, seed=5).exp(),
        "own": share * dt,
        "late": (1 - share) * dt,
    }
    return Written(**given | other)


def test_with_all_of_a_write_at_once_and_no_turns_it_is_the_rule_of_mamba2() -> None:
    given = written(share=torch.ones(B, T, H, dtype=torch.float64))
    o, kept = trapezoidal_recurrence(given, None)
    values = given.v * given.own[..., None]
    wanted, state = linear_attention(
        Tokens(given.q, given.k, values, log_decay=given.log_decay), scale=1.0, impl="reference"
    )
    torch.testing.assert_close(o, wanted)
    torch.testing.assert_close(kept.state, state)


def test_it_is_the_trapezoidal_recurrence_written_out() -> None:
    """h_t = a h_(t-1) + (1 - l) dt a k_(t-1) v_(t-1) + l dt k_t v_t (arXiv 2603.15569, proposition 1)."""
    given = written()
    o, kept = trapezoidal_recurrence(given, None)
    h, before = torch.zeros(B, H, N, P, dtype=torch.float64), torch.zeros(B, H, N, P, dtype=torch.float64)
    for t in range(T):
        outer = given.k[:, t, :, :, None] * given.v[:, t, :, None]
        decay, late, own = (x[:, t, :, None, None] for x in (given.log_decay.exp(), given.late, given.own))
        h = decay * h + late * decay * before + own * outer
        before = outer
        torch.testing.assert_close(o[:, t], (given.q[:, t, :, None] @ h)[:, :, 0])
    torch.testing.assert_close(kept.state, h)


def test_turned_keys_and_queries_are_a_state_that_turns() -> None:
    """A complex decay of pairs of states is a real one of turned keys and queries (the paper's proposition on complex
    state space models as rotary embeddings)."""
    angles = drawn(B, T, H, N // 2, seed=6)
    plain = written(share=torch.ones(B, T, H, dtype=torch.float64))
    sums = angles.cumsum(1)
    o, _ = trapezoidal_recurrence(
        written(torch.ones_like(plain.own), q=_turned(plain.q, sums), k=_turned(plain.k, sums)), None
    )
    h = torch.zeros(B, H, N // 2, P, dtype=torch.complex128)
    q, k = (torch.view_as_complex(x.unflatten(-1, (-1, 2))) for x in (plain.q, plain.k))
    for t in range(T):
        decay = torch.polar(plain.log_decay[:, t, :, None].exp().expand_as(angles[:, t]), -angles[:, t])
        h = decay[..., None] * h + k[:, t, :, :, None] * (plain.own[:, t, :, None] * plain.v[:, t])[:, :, None]
        wanted = (q[:, t, :, :, None].conj() * h).sum(2).real
        torch.testing.assert_close(o[:, t], wanted)


def test_chunks_give_what_the_recurrence_gives_with_all_gradients() -> None:
    found, wanted = gradients("chunkwise"), gradients("reference")
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-8)


def gradients(impl: str) -> dict[str, Tensor]:
    given = written().map(lambda x: x.detach().requires_grad_())
    o, kept = trapezoidal_recurrence(given, None, impl=impl)
    total = (o * drawn(*o.shape, seed=7)).sum() + (kept.state * drawn(*kept.state.shape, seed=8)).sum()
    leaves = vars(given)
    return {"o": o, "state": kept.state, **dict(zip(leaves, torch.autograd.grad(total, leaves.values()), strict=True))}


def test_what_forgets_all_or_nothing_stays_exact_in_float32() -> None:
    logs = -torch.tensor([0.0, 1e-6, 1e-3, 1.0, 1000.0], dtype=torch.float64)[torch.arange(T) * 7 % 5]
    given = written(log_decay=logs[None, :, None].expand(B, T, H))
    wanted, _ = trapezoidal_recurrence(given, None, impl="reference")
    found, _ = trapezoidal_recurrence(given.map(lambda x: x.float()), None)
    assert (found.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt() < 1e-5


def test_no_bit_of_an_output_depends_on_a_later_token_or_another_sequence() -> None:
    mixer, x = built("mamba3").train(), torch.randn(3, 90, 24)
    changed = x.clone()
    changed[:, 50:] += 1
    changed[1] = 7.0
    before, after = (mixer(given, ctx=Context())[0] for given in (x, changed))
    assert torch.equal(before[0, :50], after[0, :50])
    assert torch.equal(before[2, :50], after[2, :50])


@pytest.mark.parametrize("preset", PLUGIN.presets)
def test_steps_under_autocast_follow_the_forward_pass(preset: str) -> None:
    mixer, x = built(preset), torch.randn(2, 12, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        whole = mixer(x, ctx=Context())[0]
        _, state = mixer(x[:, :9], ctx=Context(want_state=True))
        for token in range(9, 12):
            one, state = mixer.step(x[:, token], state=state, ctx=Context())
            torch.testing.assert_close(one.float(), whole[:, token].float(), rtol=0.05, atol=0.05)
    assert state.tensors["recurrent"].dtype == torch.float32


def built(preset: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options({**PLUGIN.presets[preset], **options}), SHAPE, LAYER)


def test_a_head_dim_that_does_not_fit_is_refused_with_the_numbers() -> None:
    shape = ModelShape(d_model=20, n_heads=3, n_kv_heads=3, head_dim=7, dtype="float32")
    said = PLUGIN.check(PLUGIN.parse_options(PLUGIN.presets["mamba3"]), shape, LAYER)
    assert said is not None
    assert "expand * d_model = 40" in said
    assert "head_dim = 7" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [({"state_dim": 6}, "state_dim = 6.*a multiple of 4"), ({"conv": 4}, "conv = 4 with rule = trapezoidal")],
)
def test_options_that_make_no_sense_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        PLUGIN.parse_options({"rule": "trapezoidal", **values})


@pytest.mark.parametrize("phase", ["train", "prefill"])
@pytest.mark.parametrize("context", [1, 20, 150])
def test_matrix_products_of_a_sequence(context: int, phase: Any) -> None:
    options, mixer = PLUGIN.parse_options(PLUGIN.presets["mamba3"]), built("mamba3")
    heads, states, width = options.heads(SHAPE), options.state_dim, SHAPE.head_dim
    sizes = [len(chunk) for chunk in torch.arange(context).split(64)]
    with FlopCounterMode(display=False) as counter:
        for weight in (mixer.proj.weight, mixer.out.weight):
            _ = torch.ones(context, weight.shape[1]) @ weight.T
        for index, size in enumerate(sizes):
            k, v = torch.ones(heads, size, states), torch.ones(heads, size, width)
            for row in range(size):
                _ = k[:, row : row + 1] @ k[:, : row + 1].mT, torch.ones(heads, 1, row + 1) @ v[:, : row + 1]
            if index:
                _ = k @ torch.ones(heads, states, width)
            if phase == "prefill" or index < len(sizes) - 1:
                _ = k.mT @ v
    said = PLUGIN.flops(options, SHAPE, LAYER, phase=phase, context=context).matmul
    assert said == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_an_angle_goes_on_from_the_state_around_the_circle() -> None:
    mixer, x = built("mamba3"), 3 * torch.randn(1, 40, 24)
    _, state = mixer(x, ctx=Context(want_state=True))
    angle = state.tensors["angle"]
    assert angle.min() >= 0
    assert angle.max() < 2 * math.pi + 1e-6
