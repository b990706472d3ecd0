"""Ops on no tokens or no sequences: outputs of the right shape, and gradients for every input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from archsearch_plugins.full.ops import full_attention
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from archsearch_plugins.moba.ops import moba_attention
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.sliding.ops import window_attention
from kernel_calls import STEPS, Sizes
from torch import Tensor

from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import ShapeError

OPS: dict[str, Callable[..., Tensor]] = {
    "full": full_attention,
    "sliding": partial(window_attention, window=5, sinks=2),
    "moba": partial(moba_attention, block_size=4, top_k=2),
    "nsa": lambda laid, impl: nsa_attention(
        laid, gates=laid.q.new_ones(*laid.q.shape[:3], 3), sizes=NsaSizes(block_size=4, top_k=3, window=5), impl=impl
    ),
    "linear": lambda laid, impl: linear_attention(
        Tokens(laid.k, laid.v, laid.q), cu_seqlens=laid.cu_seqlens, impl=impl
    )[0],
}
IMPLS = ("reference", "chunkwise", "triton")
CASES = [(op, impl) for op in OPS for impl in IMPLS]


@pytest.mark.parametrize("shape", [(2, 0), (0, 5), (0, 0)], ids=["T0", "B0", "B0-T0"])
@pytest.mark.parametrize(("op", "impl"), CASES)
def test_no_tokens(op: str, impl: str, shape: tuple[int, int]) -> None:
    q, k, v = (torch.randn(*shape, heads, 16, requires_grad=True) for heads in (4, 2, 2))
    out = OPS[op](LaidOut(q, k, v), impl=impl)
    assert out.shape == q.shape
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize(("op", "impl"), CASES)
def test_a_packed_batch_of_empty_sequences(op: str, impl: str) -> None:
    q, k, v = (torch.randn(1, 0, heads, 16) for heads in (4, 2, 2))
    assert OPS[op](LaidOut(q, k, v, cu_seqlens=torch.tensor([0, 0, 0])), impl=impl).shape == q.shape


@pytest.mark.parametrize("op", ["full", "sliding", "moba", "nsa"])
def test_bounds_and_lengths_are_held_to_no_tokens_too(op: str) -> None:
    q, k, v = (torch.randn(1, 0, heads, 16) for heads in (4, 2, 2))
    with pytest.raises(ShapeError, match=r"cu_seqlens = \[0, 3\]"):
        OPS[op](LaidOut(q, k, v, cu_seqlens=torch.tensor([0, 3])), impl="chunkwise")
    with pytest.raises(ShapeError, match=r"_attention: lengths = \[3\]: must lie between the 0 queries and the 0 rows"):
        OPS[op](LaidOut(q, k, v, lengths=torch.tensor([3])), impl="chunkwise")


@pytest.mark.parametrize("op", STEPS)
def test_a_decode_step_of_no_sequences(op: str) -> None:
    with torch.no_grad():
        assert STEPS[op](Sizes(tokens=8, batch=0)).shape == (0, 2, 16)
