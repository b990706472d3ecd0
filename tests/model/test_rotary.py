"""The rotary embedding turns any slice of a projection."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from archsearch.ops.rotary import Rotary


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize(("start", "width"), [(0, 16), (3, 16), (1, 15)], ids=["begin", "odd-begin", "odd-stride"])
def test_a_slice_is_turned_as_its_copy_is(start: int, width: int, fraction: float, dtype: torch.dtype) -> None:
    rotary, positions = Rotary(4, fraction=fraction), torch.arange(7).expand(2, 7)
    whole = torch.randn(2, 7, start + width, dtype=dtype, requires_grad=True)
    heads = whole[..., start : start + 12].unflatten(-1, (3, 4))
    turned = rotary(positions, heads)
    assert_close(turned, rotary(positions, heads.contiguous()))
    turned.sum().backward()
    assert whole.grad is not None


def test_heads_that_were_swapped_are_turned() -> None:
    rotary, positions = Rotary(4), torch.arange(7).expand(2, 7)
    heads = torch.randn(2, 7, 4, 3).transpose(2, 3)
    assert_close(rotary(positions, heads), rotary(positions, heads.contiguous()))


def test_positions_that_were_written_to_turn_anew() -> None:
    """Turns are kept for the layers of a pass, by the tensor of positions."""
    first, second, positions = Rotary(4), Rotary(4, base=100.0), torch.arange(7).expand(2, 7).clone()
    heads = torch.randn(2, 7, 3, 4)
    assert_close(first(positions, heads), first(positions.clone(), heads))
    assert_close(second(positions, heads), second(positions.clone(), heads))
    assert not torch.equal(first(positions, heads), second(positions, heads))
    before = first(positions, heads)
    positions.add_(5)
    assert_close(first(positions, heads), first(positions.clone(), heads))
    assert not torch.equal(first(positions, heads), before)
