"""Test-time training against the naive form of `fla-core`."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.memory.network import EPS, Inner
from archsearch_plugins.memory.ops import Held, Learning, MemoryTokens, learning_memory

pytestmark = pytest.mark.peers


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
