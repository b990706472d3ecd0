"""One query over all rows of a cache: by the fused kernel, and by two products where the rows are many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from archsearch.ops import softmax
from archsearch.ops.cached import cached_attention
from archsearch.ops.softmax import all_rows_attention

SIZES = {"one-head": (1, 40, 1, 1), "heads": (3, 17, 2, 1), "groups": (2, 33, 2, 4), "one-row": (2, 1, 3, 2)}


def drawn(sizes: tuple[int, int, int, int], width: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """q `[B, H G, 8]`, k `[B, S, H, 8]` and v `[B, S, H, width]`, the caches laid out by heads."""
    (batch, rows, heads, group), draw = sizes, torch.Generator().manual_seed(0)
    q = torch.randn(batch, heads * group, 8, generator=draw, dtype=dtype)
    k, v = (torch.randn(batch, heads, rows, size, generator=draw, dtype=dtype).transpose(1, 2) for size in (8, width))
    return q, k, v


@pytest.fixture
def by_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_MANY_NUMBERS", 0)


def fused(q: Tensor, k: Tensor, v: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(softmax, "_MANY_NUMBERS", 2**60)
        return all_rows_attention(q, k, v, 0.3)


@pytest.mark.usefixtures("by_products")
@pytest.mark.parametrize("width", [8, 5])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_both_forms_agree(sizes: tuple[int, int, int, int], width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = drawn(sizes, width)
    torch.testing.assert_close(all_rows_attention(q, k, v, 0.3), fused(q, k, v, monkeypatch))


@pytest.mark.usefixtures("by_products")
def test_gradients_flow_through_the_products() -> None:
    inputs = [x.requires_grad_() for x in drawn(SIZES["groups"])]
    assert torch.autograd.gradcheck(lambda *given: all_rows_attention(*given, 0.3), inputs)


@pytest.mark.usefixtures("by_products")
def test_rows_that_are_not_filled_are_not_read() -> None:
    q, k, v = drawn(SIZES["groups"])
    k[:, 20:], v[:, 20:] = torch.nan, torch.nan
    found = cached_attention(q, k, v, torch.tensor([20, 20]), scale=0.3)
    torch.testing.assert_close(found, all_rows_attention(q, k[:, :20], v[:, :20], 0.3))


@pytest.mark.usefixtures("by_products")
def test_scores_are_never_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 and under autocast the fused kernel keeps them in float32."""
    for dtype in (torch.bfloat16, torch.float32):
        q, k, v = drawn(SIZES["groups"], dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            assert torch.equal(all_rows_attention(q, k, v, 0.3), fused(q, k, v, monkeypatch))
