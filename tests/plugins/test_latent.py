"""Multi-head latent attention: absorbed is multiplied out, its rule, its costs, its laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from archsearch_plugins.latent import LatentPlugin
from archsearch_plugins.latent import layer as latent_layer
from archsearch_plugins.latent.ops import latent_attention, latent_attention_absorbed
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import KernelUnavailableError, OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products

PLUGIN, LAYER = LatentPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8)
HEADS, WIDTH, RANK, SHARED = 3, 8, 12, 4


def inputs(tokens: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """q, rows and the weights that multiply latents out, in float64, wanting gradients."""
    generator = torch.Generator().manual_seed(tokens)
    sizes = [(batch, tokens, HEADS, WIDTH + SHARED), (batch, tokens, RANK + SHARED), (HEADS, 2, WIDTH, RANK)]
    q, rows, up = (torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes)
    return q, rows, up


def by_the_rule(q: Tensor, rows: Tensor, up: Tensor) -> Tensor:
    """One token and head at a time, in the words of the paper."""
    out = torch.zeros(*q.shape[:3], WIDTH, dtype=q.dtype)
    for b, t, h in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        latents, shared = rows[b, : t + 1, :RANK], rows[b, : t + 1, RANK:]
        keys = torch.cat((latents @ up[h, 0].T, shared), -1)
        weights = torch.softmax(keys @ q[b, t, h] / (WIDTH + SHARED) ** 0.5, 0)
        out[b, t, h] = weights @ (latents @ up[h, 1].T)
    return out


@pytest.mark.parametrize("impl", ["chunkwise", "reference"])
def test_multiplied_out_and_absorbed_follow_the_rule(impl: str) -> None:
    q, rows, up = inputs(9)
    wanted = by_the_rule(q, rows, up)
    positions = torch.arange(9).expand(2, -1)
    for out in (latent_attention(q, rows, up, impl=impl), latent_attention_absorbed(q, rows, up, positions, impl=impl)):
        assert_close(out, wanted, rtol=1e-10, atol=1e-10)
        for got, right in zip(
            *(torch.autograd.grad(y.sin().sum(), (q, rows, up)) for y in (out, by_the_rule(q, rows, up))), strict=True
        ):
            assert_close(got, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "values", [{}, {"shared_dim": 4, "rope": 1.0, "q_rank": 5}, {"shared_dim": 6, "kv_rank": 4}], ids=str
)
def test_a_layer_absorbs_what_it_multiplies_out(values: dict[str, Any]) -> None:
    layer = PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LAYER).double()
    x = torch.randn(2, 20, 32, dtype=torch.float64)
    with torch.no_grad():
        q, rows = layer.project(x, torch.arange(20).expand(2, -1))
        out = latent_attention(q, rows, layer.up(q))
        absorbed = latent_attention_absorbed(q, rows, layer.up(q), torch.arange(20).expand(2, -1))
    assert_close(absorbed, out, rtol=1e-10, atol=1e-10)


def test_without_compression_it_is_full_attention(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A latent that is all keys and values side by side, and nothing shared."""
    full = registry.mixer("full")
    shape = replace(SHAPE, n_kv_heads=4)
    theirs = full.build(full.parse_options({}), shape, LAYER).double()
    width = 4 * 8
    ours = PLUGIN.build(PLUGIN.parse_options({"kv_rank": 2 * width, "shared_dim": 0}), shape, LAYER).double()
    monkeypatch.setattr(latent_layer, "normed", lambda norm, x: x)
    pick = torch.eye(2 * width, dtype=torch.float64).unflatten(0, (2, 4, 8)).transpose(0, 1)
    weights = {
        "q_up.weight": theirs.qkv.weight[:width],
        "kv_down.weight": theirs.qkv.weight[width:],
        "kv_up.weight": pick.flatten(0, 2),
        "out.weight": theirs.out.weight,
    }
    assert ours.load_state_dict(weights, strict=False).missing_keys == ["kv_norm.weight"]
    x = torch.randn(2, 30, 32, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours(x, ctx=Context())[0], theirs(x, ctx=Context())[0], rtol=1e-10, atol=1e-10)


def test_the_state_is_one_row_a_token_whatever_the_heads() -> None:
    options = PLUGIN.parse_options({"kv_rank": 512, "shared_dim": 64})
    for heads in (1, 16):
        shape = replace(SHAPE, n_heads=heads, n_kv_heads=heads)
        assert sum(row.nbytes(1000) for row in PLUGIN.state(options, shape, LAYER)) == 1000 * 576 * 2
        traffic = PLUGIN.traffic(options, shape, LAYER, context=1000)
        assert (traffic.read_bytes, traffic.written_bytes) == (1000 * 576 * 2, 576 * 2)


@pytest.mark.parametrize("values", [{}, {"q_rank": 12, "kv_rank": 24}, {"shared_dim": 16}], ids=str)
def test_matmul_flops_are_those_of_the_products(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    options, tokens = PLUGIN.parse_options(values), 96
    layer, x = PLUGIN.build(options, SHAPE, LAYER), torch.randn(1, tokens, 32)
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    masked = tokens * (tokens - 1) / 2  # pairs that a causal mask throws away
    counted = products(lambda: layer(x, ctx=Context())) - 2.0 * masked * 4 * (16 + options.shared_dim)
    assert PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=tokens).matmul == pytest.approx(
        counted, rel=1e-3
    )
    _, state = layer(x[:, :-1], state=layer.init_state(1, tokens), ctx=Context(want_state=True))
    counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context(want_state=True)))
    assert PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=tokens).matmul == pytest.approx(
        counted, rel=1e-3
    )


def test_bad_arguments_are_named() -> None:
    q, rows, up = inputs(4)
    with pytest.raises(KernelUnavailableError, match="no such form"):
        latent_attention(q, rows, up, impl="triton")
    with pytest.raises(OptionsError, match=r"latent\(kv_rank=0\)"):
        PLUGIN.parse_options({"kv_rank": 0})
    with pytest.raises(OptionsError, match="use shared_dim above 0"):
        PLUGIN.parse_options({"rope": 1.0})


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_mla_keeps_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, {"kv_rank": 24, "shared_dim": 6, "rope": 1.0, "q_rank": 12}))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
class TestLatentConformance(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")
