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
from archsearch.layer import LayerSpec
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.registry import Registry

PLUGIN = SsmPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
LAYER = LayerInfo(index=0, depth=2)
B, T, H, N, P = 2, 75, 2, 4, 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written(share: Tensor | None = None, rank: int = 1, **other: Tensor) -> Written:
    dt = drawn(B, T, H, seed=3).abs()
    share = drawn(B, T, H, seed=4).sigmoid() if share is None else share
    given: dict[str, Tensor] = {
        "q": drawn(B, T, H, rank, N),
        "k": drawn(B, T, H, rank, N, seed=1),
        "v": drawn(B, T, H, rank, P, seed=2),
        "log_decay": -dt * drawn(B, T, H, seed=5).exp(),
        "own": share * dt,
        "late": (1 - share) * dt,
    }
    return Written(**given | other)


def test_with_all_of_a_write_at_once_and_no_turns_it_is_the_rule_of_mamba2() -> None:
    given = written(share=torch.ones(B, T, H, dtype=torch.float64))
    o, kept = trapezoidal_recurrence(given, None)
    q, k, v = (x.squeeze(-2) for x in (given.q, given.k, given.v))
    wanted, state = linear_attention(
        Tokens(q, k, v * given.own[..., None], log_decay=given.log_decay), scale=1.0, impl="reference"
    )
    torch.testing.assert_close(o.squeeze(-2), wanted)
    torch.testing.assert_close(kept.state, state)


@pytest.mark.parametrize("rank", [1, 3], ids=["siso", "mimo"])
def test_it_is_the_trapezoidal_recurrence_written_out(rank: int) -> None:
    """h_t = a h_(t-1) + (1 - l) dt a W_(t-1) + l dt W_t, W = sum_r k_r v_r (arXiv 2603.15569, proposition 1)."""
    given = written(rank=rank)
    o, kept = trapezoidal_recurrence(given, None)
    h, before = torch.zeros(B, H, N, P, dtype=torch.float64), torch.zeros(B, H, N, P, dtype=torch.float64)
    for t in range(T):
        outer = torch.einsum("bhrn,bhrp->bhnp", given.k[:, t], given.v[:, t])
        decay, late, own = (x[:, t, :, None, None] for x in (given.log_decay.exp(), given.late, given.own))
        h = decay * h + late * decay * before + own * outer
        before = outer
        torch.testing.assert_close(o[:, t], torch.einsum("bhrn,bhnp->bhrp", given.q[:, t], h))
    torch.testing.assert_close(kept.state, h)


def test_turned_keys_and_queries_are_a_state_that_turns() -> None:
    """A complex decay of pairs of states is a real one of turned keys and queries (the paper's proposition on complex
    state space models as rotary embeddings)."""
    angles = drawn(B, T, H, N // 2, seed=6)
    plain = written(share=torch.ones(B, T, H, dtype=torch.float64))
    sums = angles.cumsum(1)[..., None, :]
    o, _ = trapezoidal_recurrence(
        written(torch.ones_like(plain.own), q=_turned(plain.q, sums), k=_turned(plain.k, sums)), None
    )
    h = torch.zeros(B, H, N // 2, P, dtype=torch.complex128)
    q, k = (torch.view_as_complex(x.squeeze(-2).unflatten(-1, (-1, 2))) for x in (plain.q, plain.k))
    v = plain.v.squeeze(-2)
    for t in range(T):
        decay = torch.polar(plain.log_decay[:, t, :, None].exp().expand_as(angles[:, t]), -angles[:, t])
        h = decay[..., None] * h + k[:, t, :, :, None] * (plain.own[:, t, :, None] * v[:, t])[:, :, None]
        wanted = (q[:, t, :, :, None].conj() * h).sum(2).real
        torch.testing.assert_close(o[:, t, :, 0], wanted)


@pytest.mark.parametrize("rank", [1, 3], ids=["siso", "mimo"])
def test_chunks_give_what_the_recurrence_gives_with_all_gradients(rank: int) -> None:
    found, wanted = gradients("chunkwise", rank), gradients("reference", rank)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-8)


def gradients(impl: str, rank: int) -> dict[str, Tensor]:
    given = written(rank=rank).map(lambda x: x.detach().requires_grad_())
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


@pytest.mark.parametrize("rank", [1, 3], ids=["siso", "mimo"])
def test_no_bit_of_an_output_depends_on_a_later_token_or_another_sequence(rank: int) -> None:
    mixer, x = built("mamba3", rank=rank).train(), torch.randn(3, 90, 24)
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
@pytest.mark.parametrize(("context", "rank"), [(1, 1), (20, 1), (150, 1), (150, 4)])
def test_matrix_products_of_a_sequence(context: int, rank: int, phase: Any) -> None:
    mixer = built("mamba3", rank=rank)
    options = mixer.options
    heads, states, width = options.heads(SHAPE), options.state_dim, SHAPE.head_dim
    sizes = [len(chunk) for chunk in torch.arange(context).split(64)]
    with FlopCounterMode(display=False) as counter:
        for weight in (mixer.proj.weight, mixer.out.weight):
            _ = torch.ones(context, weight.shape[1]) @ weight.T
        for index, size in enumerate(sizes):
            k, v = torch.ones(heads, size * rank, states), torch.ones(heads, size * rank, width)
            for row in range(rank, size * rank + 1, rank):
                _ = k[:, :rank] @ k[:, :row].mT, torch.ones(heads, rank, row) @ v[:, :row]
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


def test_inputs_and_outputs_that_are_all_alike_are_one() -> None:
    """Mamba-3's MIMO (arXiv 2603.15569, section 3.3) of equal keys, queries and weights is SISO, whose skip each input
    has a share of."""
    one, several, x = built("mamba3").double(), built("mamba3", rank=4).double(), drawn(2, 70, 24)
    weights = dict(one.state_dict())
    gate, value, k, q, *rest = weights["proj.weight"].split(one.sizes)
    weights["proj.weight"] = torch.cat((gate, value, k.repeat(4, 1), q.repeat(4, 1), *rest))
    for name in ("k_bias", "q_bias"):
        weights[name] = weights[name].expand(-1, 4, -1)
    left = several.load_state_dict(weights, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["inputs", "gates", "outputs"], [])
    torch.nn.init.constant_(one.skip, 1 / 4)
    assert_same(several, one, x)
    with torch.no_grad():
        several.gates[:, 1:] = 0.0
        several.outputs[:, 0] = 1.0
    assert_same(several, one, x)


def assert_same(several: Any, one: Any, x: Tensor) -> None:
    wanted = one(x, ctx=Context())[0]
    torch.testing.assert_close(several(x, ctx=Context())[0], wanted)
    _, state = several(x[:, :68], ctx=Context(want_state=True), state=several.init_state(2, 70, dtype=torch.float64))
    for t in (68, 69):
        y, state = several.step(x[:, t], state=state, ctx=Context())
        torch.testing.assert_close(y, wanted[:, t])


def test_several_inputs_keep_a_key_each_and_one_value_and_only_trapezoidal_has_them() -> None:
    options = PLUGIN.parse_options({"rule": "trapezoidal", "rank": 4})
    rows = {tensor.name: tensor.row_shape for tensor in PLUGIN.state(options, SHAPE, LAYER)}
    assert (rows["key"], rows["value"], rows["recurrent"]) == ((6, 4, 64), (6, 8), (6, 64, 8))
    mixer = built("mamba3", rank=4)
    assert PLUGIN.params(options, SHAPE, LAYER) == sum(weights.numel() for weights in mixer.parameters())
    with pytest.raises(OptionsError, match=r"rank = 4 with rule = fixed: set rule = trapezoidal, or leave rank out"):
        PLUGIN.parse_options({"rule": "fixed", "rank": 4})


@pytest.mark.parametrize("rank", [1, 3], ids=["siso", "mimo"])
@torch.no_grad()
def test_each_output_of_a_head_is_normed_before_its_gate(rank: int) -> None:
    """As the authors' code norms: RMSNorm of groups that are heads, times silu of the gate."""
    mixer = built("mamba3", rank=rank, output_norm=True).double()
    mixer.norm.copy_(drawn(*mixer.norm.shape, seed=1))
    o, v = (drawn(B, T, mixer.heads, rank, mixer.width, seed=seed) for seed in (2, 3))
    gate = drawn(B, T, mixer.heads, mixer.width, seed=4)
    read = o + v  # skips start at 1
    read = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm[:, None]
    opened = torch.nn.functional.silu(gate[..., None, :] if rank == 1 else gate[..., None, :] * mixer.gates)
    wanted = (read * opened if rank == 1 else (read * opened * mixer.outputs)).sum(-2).flatten(2)
    torch.testing.assert_close(mixer._output(o, v, gate.flatten(2)), mixer.out(wanted))


def test_a_norm_of_what_has_no_heads_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"output_norm = true with rule = selective: set rule = trapezoidal"):
        PLUGIN.parse_options({"output_norm": True})


def test_layers_from_before_there_was_a_rank_are_written_as_they_were(installed: Registry) -> None:
    """So that digests, and what was measured under them, stay."""
    one, several = installed.layer("mamba3"), installed.layer("mamba3(rank=2)")
    assert not {"rank", "output_norm"} & set(one.to_json()["options"])
    assert several.to_json()["options"]["rank"] == 2
    for layer in (one, several):
        assert LayerSpec.make("ssm", installed, **layer.to_json()["options"]) == layer
