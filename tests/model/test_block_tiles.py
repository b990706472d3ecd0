"""Attention over chosen blocks in tiles equals that under the mask of them, in outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from archsearch.ops import block_tiles
from archsearch.ops.block_sparse import best_blocks, visible_keys
from archsearch.ops.block_tiles import attend_blocks


def random_choice(positions: Tensor, choosers: int, block_size: int, count: int) -> Tensor:
    """The own block and random past ones, `[B, Hc, T, count]`, no block twice."""
    own = (positions // block_size)[:, None, :, None].expand(-1, choosers, -1, -1)
    blocks = torch.arange(int(positions.max()) // block_size + 1)
    scores = torch.rand(*own.shape[:3], len(blocks), generator=torch.Generator().manual_seed(0))
    past = best_blocks(scores.masked_fill(blocks >= own, -torch.inf), count - 1)
    return torch.cat((own, past), dim=-1)


def by_mask(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float) -> Tensor:
    """`visible` `[B, Hc, T, S]`."""
    share = q.shape[2] // k.shape[2]
    keys, values = (x.repeat_interleave(share, 2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, keys) * scale
    hidden = ~visible.repeat_interleave(q.shape[2] // visible.shape[1], 1)
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)


@pytest.mark.parametrize("pieces", [1, 2**18], ids=["a-tile-at-a-time", "all-at-once"])
@pytest.mark.parametrize("choosers", [4, 2], ids=["each-head-chooses", "groups-choose"])
@pytest.mark.parametrize(("keys", "block_size", "count"), [(1, 4, 2), (50, 8, 3), (64, 16, 2), (33, 1, 5)])
def test_equals_the_mask(
    monkeypatch: pytest.MonkeyPatch, keys: int, block_size: int, count: int, choosers: int, pieces: int
) -> None:
    monkeypatch.setattr(block_tiles, "TILE_ELEMENTS", pieces)
    generator = torch.Generator().manual_seed(keys)
    positions = torch.arange(keys - max(1, keys // 2), keys).expand(2, -1)
    sizes = [(2, positions.shape[1], 4, 8), (2, keys, 2, 8), (2, keys, 2, 5)]
    tensors = [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]
    chosen = random_choice(positions, choosers, block_size, count)
    out = attend_blocks(*tensors, chosen, positions, block_size=block_size, scale=0.3)
    expected = by_mask(*tensors, visible_keys(chosen, positions, keys, block_size), 0.3)
    assert_close(out, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    for got, right in zip(
        torch.autograd.grad((out * weights).sum(), tensors),
        torch.autograd.grad((expected * weights).sum(), tensors),
        strict=True,
    ):
        assert_close(got, right, rtol=1e-9, atol=1e-9)


def test_bfloat16_gradients_stay_near_float32() -> None:
    generator = torch.Generator().manual_seed(3)
    positions = torch.arange(600).expand(2, -1)
    tensors = [torch.randn(2, 600, heads, 32, generator=generator).bfloat16().requires_grad_() for heads in (4, 2, 2)]
    weights = torch.randn(2, 600, 4, 32, generator=generator).bfloat16()
    chosen = random_choice(positions, 2, 16, 6)
    out = attend_blocks(*tensors, chosen, positions, block_size=16, scale=0.2)
    wide = [x.detach().float().requires_grad_() for x in tensors]
    expected = by_mask(*wide, visible_keys(chosen, positions, 600, 16), 0.2)
    pairs = [(out, expected)]
    pairs += zip(
        torch.autograd.grad((out * weights).sum(), tensors),
        torch.autograd.grad((expected * weights.float()).sum(), wide),
        strict=True,
    )
    for (got, right), bound in zip(pairs, (5e-3, 8e-3, 8e-3, 8e-3), strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - right).square().mean().sqrt() <= bound * right.square().mean().sqrt()


def test_equal_scores_fall_to_the_earliest() -> None:
    scores = torch.tensor([[1.0, 2.0, 1.0, 1.0, 2.0], [-torch.inf, 3.0, -torch.inf, -torch.inf, -torch.inf]])
    assert [sorted(row) for row in best_blocks(scores, 3).tolist()] == [[0, 1, 4], [-1, -1, 1]]
    assert best_blocks(scores, 9).shape == (2, 5)
    assert best_blocks(scores[:, :0], 2).shape == (2, 0)
