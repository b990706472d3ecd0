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
