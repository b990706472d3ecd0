"""How queries lie against keys: checked once, refused in the name of the op, and passed as one value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import ShapeError
from archsearch.ops.triton.layout import lay_blocks, lay_sequences, most_blocks


def tensors(batch: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(batch, queries, 2, 4), torch.zeros(batch, keys, 1, 4), torch.zeros(batch, keys, 1, 4)


def last_rows(q: Tensor, k: Tensor, v: Tensor, *more: Tensor) -> Tensor:
    """What each query stands at, and how many keys there are."""
    at = torch.arange(k.shape[1] - q.shape[1], k.shape[1])[None, :, None, None]
    return at.expand(*q.shape[:3], 1) + 100 * k.shape[1]


WAYS: dict[str, tuple[tuple[int, int, int], dict[str, Any], list[list[int]]]] = {
    "whole": ((1, 2, 5), {}, [[503, 504]]),
    "of-one-length": ((2, 1, 5), {"lengths": torch.tensor([3, 3])}, [[302], [302]]),
    "of-lengths": ((2, 2, 5), {"lengths": torch.tensor([2, 4])}, [[200, 201], [402, 403]]),
    "packed": ((1, 5, 5), {"cu_seqlens": torch.tensor([0, 2, 2, 5])}, [[200, 201, 300, 301, 302]]),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_sequence_meets_its_own_keys(way: str) -> None:
    sizes, places, expected = WAYS[way]
    laid = LaidOut(*tensors(*sizes), **places)
    assert laid.whole == (way == "whole")
    assert laid.each_apart("op", last_rows)[:, :, 0, 0].tolist() == expected
    assert laid.flat[3:] == (places.get("cu_seqlens"), places.get("lengths"))


@pytest.mark.parametrize("way", WAYS)
def test_kernels_are_told_the_same_places(way: str) -> None:
    """Keys of all sequences stand end to end: where a query stands among them follows from what it met above."""
    sizes, places, expected = WAYS[way]
    laid = LaidOut(*tensors(*sizes), **places)
    found, blocks = lay_sequences(laid), lay_blocks(laid, 2)
    begins = found.begins[found.sequence]
    met = [number for row in expected for number in row]
    assert (found.at - begins).tolist() == [number % 100 for number in met]
    assert (found.ends[found.sequence] - begins).tolist() == [number // 100 for number in met]
    assert blocks.at.tolist() == found.at.tolist()
    assert blocks.count == most_blocks(laid, 2)


@pytest.mark.parametrize(
    ("sizes", "places", "message"),
    [
        ((1, 3, 2), {}, "more queries than keys"),
        ((1, 2, 3), {"cu_seqlens": torch.tensor([0, 2])}, "as many queries as keys"),
        ((2, 2, 2), {"cu_seqlens": torch.tensor([0, 2])}, "a batch of 1"),
        ((1, 2, 2), {"cu_seqlens": torch.tensor([[0, 2]])}, r"must be \[sequences \+ 1\]"),
        ((1, 2, 2), {"lengths": torch.tensor([2, 2])}, r"lengths must be \[batch\]"),
        ((1, 2, 2), {"lengths": torch.tensor([2]), "cu_seqlens": torch.tensor([0, 2])}, "give one"),
    ],
    ids=["queries", "packed-cache", "packed-batch", "bounds", "lengths", "both"],
)
def test_what_does_not_fit_is_refused(sizes: tuple[int, int, int], places: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=f"^some_attention: .*{message}"):
        LaidOut(*tensors(*sizes), **places).check("some_attention")
    with pytest.raises(ShapeError, match=f"^some_attention: .*{message}"):
        LaidOut(*tensors(*sizes), **places).each_apart("some_attention", last_rows)


@pytest.mark.parametrize("place", [{"cu_seqlens": torch.tensor([0, 3])}, {"lengths": torch.tensor([1])}])
def test_what_bounds_and_lengths_hold_is_read_where_sequences_are_taken_apart(place: dict[str, Tensor]) -> None:
    laid = LaidOut(*tensors(1, 2, 2), **place)
    laid.check("op")
    with pytest.raises(ShapeError, match=r"must (rise|lie)"):
        laid.each_apart("op", last_rows)
