"""Packed sequences as padded rows, and back."""

from __future__ import annotations

import pytest
import torch

from archsearch.ops.padded import PaddedRows
from archsearch.ops.softmax import ShapeError


def test_each_sequence_has_a_row_and_comes_back_in_its_place() -> None:
    x = torch.arange(1.0, 7.0)[None, :, None]
    rows = PaddedRows.of(torch.tensor([0, 2, 2, 5, 6]), 6)
    padded = rows.pad(x)
    assert padded[..., 0].tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [6, 0, 0]]
    assert torch.equal(rows.unpad(padded), x)


def test_no_tokens_are_rows_without_places() -> None:
    rows = PaddedRows.of(torch.tensor([0, 0, 0]), 0)
    assert rows.pad(torch.ones(1, 0, 3)).shape == (2, 0, 3)


def test_bounds_that_do_not_end_with_the_tokens_are_refused() -> None:
    with pytest.raises(ShapeError, match="must rise from 0"):
        PaddedRows.of(torch.tensor([0, 2]), 3)
