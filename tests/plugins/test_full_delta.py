"""DeltaFormer: the values that are kept against a loop over tokens, and the writes that they are made of."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.full import delta
from archsearch_plugins.full.delta import delta_values
from torch import Tensor
from torch.testing import assert_close


def _inputs(tokens: int) -> list[Tensor]:
    torch.manual_seed(tokens)
    return [torch.randn(2, tokens, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(2)]


def _token_by_token(k: Tensor, v: Tensor) -> Tensor:
    """DeltaFormer, arXiv 2505.19488: u_t = v_t - sum over i < t of w(t, i) u_i."""
    kept: list[Tensor] = []
    for t in range(k.shape[1]):
        u = v[:, t]
        if kept:
            weights = ((k[:, t, None] * k[:, :t]).sum(-1) * 8**-0.5).softmax(1)
            u = u - (weights[..., None] * torch.stack(kept, 1)).sum(1)
        kept.append(u)
    return torch.stack(kept, 1)


def _op(k: Tensor, v: Tensor, impl: str = "auto") -> Tensor:
    return delta_values(k, v, torch.arange(k.shape[1]).expand(len(k), -1), v[:, :0], impl=impl)


@pytest.mark.parametrize(("tokens", "size", "impl"), [(2, 64, "auto"), (23, 5, "auto"), (9, 64, "reference")])
def test_kept_values_equal_token_by_token(tokens: int, size: int, impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "BLOCK", size)
    inputs = _inputs(tokens)
    expected, actual = _token_by_token(*inputs), _op(*inputs, impl=impl)
    assert_close(actual, expected)
    loss = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * loss).sum(), inputs),
        torch.autograd.grad((expected * loss).sum(), inputs),
        strict=True,
    ):
        assert_close(found, wanted)


def test_later_tokens_go_on_from_the_values_that_are_kept() -> None:
    k, v = (x.detach() for x in _inputs(30))
    whole = _op(k, v)
    order = torch.tensor([[20, 21, 22], [11, 12, 13]])
    keys = torch.stack((k[0, :23], torch.cat((k[1, :14], torch.full((9, 2, 8), 7.0, dtype=torch.float64)))))
    before = torch.stack((whole[0, :20], torch.cat((whole[1, :11], torch.full((9, 2, 8), 7.0, dtype=torch.float64)))))
    new = torch.stack([v[row, start : start + 3] for row, start in enumerate((20, 11))])
    found = delta_values(keys, new, order, before)
    assert_close(found, torch.stack([whole[row, start : start + 3] for row, start in enumerate((20, 11))]))


def test_a_second_value_under_a_key_takes_the_place_of_the_first() -> None:
    """DeltaFormer, arXiv 2505.19488: a write first reads what is there and takes it away, as DeltaNet's does.
    Where keys are far apart a read finds the two writes under its key, one half of each: the new value alone."""
    _, v = (x.detach() for x in _inputs(4))
    k = torch.zeros(2, 4, 2, 8, dtype=torch.float64)
    for token, channel in enumerate((0, 1, 2, 0)):
        k[:, token, :, channel] = 30.0
    u = _op(k, v)
    assert_close((u[:, 0] + u[:, 3]) / 2, v[:, 3] / 2)


def test_float32_agrees_with_float64() -> None:
    k, v = (x.detach() for x in _inputs(300))
    assert_close(_op(k.float(), v.float()).double(), _op(k, v), rtol=1e-5, atol=1e-5)
