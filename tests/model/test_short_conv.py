"""The short convolution: its fast form against torch's own, tails, packed batches, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from archsearch.ops.short_conv import ShortConv, next_tail


def conv_and_input(width: int, tokens: int) -> tuple[ShortConv, torch.Tensor]:
    """A convolution over 3 channels in float64 and two sequences."""
    torch.manual_seed(0)
    return ShortConv(3, width).double(), torch.randn(2, tokens, 3, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_equals_conv1d(width: int, tokens: int) -> None:
    conv, x = conv_and_input(width, tokens)
    padded = F.pad(x.transpose(1, 2), (width - 1, 0))
    expected = F.conv1d(padded, conv.weight.flip(0).t()[:, None], groups=3).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected)


def test_gradients() -> None:
    conv, x = conv_and_input(4, 6)
    assert torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(conv, {"weight": weight}, x), (x, conv.weight)
    )


def test_a_tail_carries_over() -> None:
    conv, x = conv_and_input(4, 9)
    whole, tail = conv(x), torch.zeros(2, 3, 3, dtype=torch.float64)
    parts = []
    for start, end in ((0, 2), (2, 7)):
        parts.append(conv(x[:, start:end], tail=tail))
        tail = next_tail(tail, x[:, start:end])
    for position in (7, 8):
        parts.append(conv.step(x[:, position], tail)[:, None])
        tail = next_tail(tail, x[:, position : position + 1])
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_nothing_crosses_a_packed_boundary() -> None:
    conv, x = conv_and_input(4, 9)
    positions = torch.tensor([[0, 1, 0, 0, 1, 2, 3, 4, 5]]).expand(2, 9)
    packed = conv(x, positions=positions)
    for start, end in ((0, 2), (2, 3), (3, 9)):
        torch.testing.assert_close(packed[:, start:end], conv(x[:, start:end]))
