"""Ops by kernels read no value back from the device, forwards, backwards and in a decode step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
import torch
from archsearch_plugins.full.ops import full_attention_step
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.moba.ops import moba_attention, moba_attention_step
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.step import nsa_attention_step
from archsearch_plugins.sliding.ops import window_attention, window_attention_step
from torch import Tensor

READS = ("item", "tolist", "nonzero", "__bool__", "__int__", "__float__", "__index__", "cpu")


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def linear(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor | None) -> Tensor:
    gates = {"log_decay": -normal(*k.shape).abs(), "beta": normal(*k.shape[:3]).sigmoid()}
    return linear_attention(q, k, v, **gates, cu_seqlens=bounds, impl="triton")[0]


SEQUENCES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = {
    "linear": linear,
    "sliding": lambda q, k, v, bounds: window_attention(
        q, k, v, window=5, sinks=2, cu_seqlens=bounds, impl="triton"
    ),
    "moba": lambda q, k, v, bounds: moba_attention(
        q, k, v, block_size=4, top_k=2, cu_seqlens=bounds, impl="triton"
    ),
    "nsa": lambda q, k, v, bounds: nsa_attention(
        q, k, v, gates=normal(1, 12, 2, 3), block_size=4, top_k=3, window=5, cu_seqlens=bounds, impl="triton"
    ),
}  # fmt: skip
STEPS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "full": lambda q, k, means, lengths: full_attention_step(q, k, k, lengths, impl="triton"),
    "sliding": lambda q, k, means, lengths: window_attention_step(q, k, k, lengths, impl="triton"),
    "moba": lambda q, k, means, lengths: moba_attention_step(
        q, k, k, means, lengths, block_size=4, top_k=2, impl="triton"
    ),
    "nsa": lambda q, k, means, lengths: nsa_attention_step(
        q, k, k, means, means, lengths, gates=normal(2, 2, 3), block_size=4, top_k=3, window=5, impl="triton"
    ),
}  # fmt: skip


@pytest.fixture
def no_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is asked for its value fails the test."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("a value was read back from the device")

    for name in READS:
        monkeypatch.setattr(Tensor, name, refuse)
    monkeypatch.setattr(torch, "nonzero", refuse)


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("op", SEQUENCES)
def test_forwards_and_backwards(op: str, packed: bool, no_reads: None) -> None:
    q, k, v = (normal(1, 12, 2, 16) for _ in range(3))
    bounds = torch.tensor([0, 5, 5, 12]) if packed else None
    gradients = torch.autograd.grad(SEQUENCES[op](q, k, v, bounds).sum(), (q, k, v))
    assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("op", STEPS)
def test_decode_step(op: str, no_reads: None) -> None:
    with torch.no_grad():
        out = STEPS[op](normal(2, 2, 16), normal(2, 20, 2, 16), normal(2, 5, 2, 16), torch.tensor([7, 18]))
    assert out.shape == (2, 2, 16)


def test_a_value_that_is_read_fails(no_reads: None) -> None:
    with pytest.raises(pytest.fail.Exception, match="read back"):
        torch.ones(1).item()
