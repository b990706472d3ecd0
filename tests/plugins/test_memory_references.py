"""Test-time training against the naive form of `fla-core`."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.memory import ops
from archsearch_plugins.memory.coefficients import coefficients
from archsearch_plugins.memory.network import EPS, Inner, Weights, gradients
from archsearch_plugins.memory.ops import Held, Learning, MemoryTokens, learning_memory
from torch import Tensor

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def test_ttt_linear_learns_what_that_of_fla_learns() -> None:
    """Weights and bias after all tokens. What fla gives is o + norm(o), ours q + norm(o): that of o is compared."""
    naive = pytest.importorskip("fla.ops.ttt.naive", reason="fla-core 0.6.0 is not installed: it has the naive form")
    batch, tokens, heads, width = 2, 48, 2, 8
    torch.manual_seed(0)
    q, k, v = (torch.randn(batch, tokens, heads, width) for _ in range(3))
    scale, shift = torch.randn(heads, width), torch.randn(heads, width)
    first, bias = torch.randn(batch, heads, width, width), torch.randn(batch, heads, 1, width)
    theirs, last, last_bias = naive.chunk_ttt_linear_ref(
        q, k, v, scale, shift, torch.full((batch, tokens, heads, 1), 0.05), scale=1.0, eps=EPS, mini_batch_size=16,
        initial_state=first, initial_state_bias=bias, output_final_state=True,
    )  # fmt: skip
    weights = (torch.cat((first, bias), 2),)
    given = MemoryTokens(q=q, k=k, v=v, rate=torch.full((batch, tokens, heads), 0.05))
    inner = Inner(scale=scale[:, None], shift=shift[:, None], residual=True, bias=True)
    found, held = learning_memory(
        given, Held(start=weights, now=weights), Learning(inner=inner, mini_batch=16), want_state=True
    )
    torch.testing.assert_close(held.now[0], torch.cat((last, last_bias), 2), rtol=1e-4, atol=1e-4)
    normed = found - q
    again = torch.nn.functional.layer_norm(theirs - normed, (width,), eps=EPS) * scale + shift
    torch.testing.assert_close(again, normed, rtol=1e-3, atol=1e-3)


B, T, H, D, BATCH = 2, 48, 3, 8, 16


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


rate, forget, momentum = (drawn(B, T, H, 1, seed=seed).sigmoid() * most for seed, most in enumerate((1, 0.1, 1)))
scale, shift = drawn(H, D, seed=3), drawn(H, D, seed=4)


def test_titans_weighs_gradients_as_that_of_fla_does() -> None:
    """What is left of weights, of momentum and of each gradient at each token of a mini-batch, forgetting `alpha` and
    momentum `eta` there; the latter two at its end too."""
    naive = pytest.importorskip("fla.ops.titans.naive", reason="fla-core 0.6.0 is not installed: it has the naive form")
    given = [x[:, :BATCH].transpose(1, 2) for x in (0.1 * rate, forget, momentum)]
    kept, _, carried, _, _, written, coasted, pushed = naive.combine_params(*given, BATCH)
    rates, forgets, pushes = (x[..., 0] for x in given)
    ours = coefficients(rates, torch.log1p(-forgets), pushes.log(), None)
    close = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(ours.written, written, **close)
    torch.testing.assert_close(ours.kept[..., 0], kept, **close)
    torch.testing.assert_close(ours.carried[..., 0], carried, **close)
    torch.testing.assert_close(ours.coasted[..., 0, 0], coasted, **close)
    torch.testing.assert_close(-ours.pushed[..., 0], pushed, **close)


def error_of_fla(normed: Tensor, above: Tensor, deviation: Tensor) -> Tensor:
    """What it takes for the gradient of LayerNorm: a bracket is missing, so that only sums are divided."""
    sums = above.sum(-1, keepdim=True) + normed * (above * normed).sum(-1, keepdim=True)
    return D * above - sums / (deviation * D)


def parts(k: Tensor, v: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    z = k @ weights[0]
    deviation = (z.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()
    normed = (z - z.mean(-1, keepdim=True)) / deviation
    return normed, (normed * scale[:, None] + shift[:, None] - (v - k)) * scale[:, None], deviation


def test_titans_of_fla_takes_another_gradient_which_is_none() -> None:
    """In float64: that of autograd is ours, and not what `fla.ops.titans.naive` makes."""
    k, v = (drawn(B, H, BATCH, D, seed=seed).double() for seed in (5, 6))
    weights = drawn(B, H, D, D, seed=7).double().requires_grad_()
    inner = Inner(scale=scale[:, None], shift=shift[:, None], residual=True, bias=False)
    loss = (inner.given(k, k @ weights) - v).square().sum() / 2
    (wanted,) = torch.autograd.grad(loss, weights)
    (inputs,), (errors,) = gradients(k, v, (weights,), inner)
    torch.testing.assert_close(inputs.mT @ errors, wanted)
    theirs = k.mT @ error_of_fla(*parts(k, v, (weights,)))
    assert ((theirs - wanted).norm() / wanted.norm()).item() > 1


def test_titans_learns_what_that_of_fla_learns_of_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights after all tokens and outputs, its gradient of LayerNorm in the place of ours; the factor 2 of its
    gradient is in our rate. What fla gives is o + norm(o), ours q + norm(o): that of o is compared."""
    naive = pytest.importorskip("fla.ops.titans.naive", reason="fla-core 0.6.0 is not installed: it has the naive form")
    q, k, v = (drawn(B, T, H, D, seed=seed) for seed in (8, 9, 10))
    first = drawn(B, H, D, D, seed=11)
    theirs, last = naive.chunk_titans_linear_ref(
        q, k, v, scale, shift, 1e-3 * rate, forget, momentum, eps=EPS, chunk_size=BATCH, initial_state=first,
        output_final_state=True, use_chunk=False,
    )  # fmt: skip

    def of_fla(k: Tensor, v: Tensor, weights: Weights, inner: Inner) -> tuple[Weights, Weights]:
        return (k,), (error_of_fla(*parts(k, v, weights)),)

    monkeypatch.setattr(ops, "gradients", of_fla)
    given = MemoryTokens(
        q=q,
        k=k,
        v=v,
        rate=2e-3 * rate[..., 0],
        log_keep=torch.log1p(-forget[..., 0]),
        log_momentum=momentum[..., 0].log(),
    )
    inner = Inner(scale=scale[:, None], shift=shift[:, None], residual=True, bias=False)
    held = Held(start=(first,), now=(first,))
    found, held = learning_memory(given, held, Learning(inner=inner, mini_batch=BATCH), want_state=True)
    torch.testing.assert_close(held.now[0], last, rtol=1e-4, atol=1e-4)
    normed = found - q
    again = torch.nn.functional.layer_norm(theirs - normed, (D,), eps=EPS) * scale + shift
    torch.testing.assert_close(again, normed, rtol=1e-3, atol=1e-3)
