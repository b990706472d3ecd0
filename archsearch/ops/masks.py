"""Masks that follow from the order of tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def earlier_in_sequence(order: Tensor) -> Tensor:
    """Which tokens of a row each sees, `[B, T, T]`: itself and those before it in its own sequence.

    `order` `[B, T]` is the index of each token in its sequence, as `archsearch.model.Context.order_of` gives it; packed
    sequences lie end to end.
    """
    index = torch.arange(order.shape[1], device=order.device)
    return (index <= index[:, None]) & (index >= (index - order)[..., None])
