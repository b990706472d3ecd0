"""Choices of blocks in the place of a kernel's that is not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def stand_in_choices(arguments: Mapping[str, Any]) -> list[int]:
    """Fills ``chosen`` `[tokens, heads, slots]` int32 with past blocks from ``firsts`` to before ``owns`` `[tokens]` of
    each token, drawn evenly, -1 where there is none: what a ranking of random keys comes to."""
    chosen, own, first = (arguments[name] for name in ("chosen", "owns", "firsts"))
    generator = torch.Generator().manual_seed(0)
    past = (own - first)[:, None, None]
    drawn = (torch.rand(chosen.shape, generator=generator) * past).to(torch.int32)
    chosen.copy_(torch.where(past > 0, drawn + first[:, None, None], -1))
    return [chosen.data_ptr()]
