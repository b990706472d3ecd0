"""Products: how scores are made of queries and keys, for the kernels that make them tile by tile."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Products:
    """Scores of blocks by products of ``queries`` `[B, T, J, I]` and ``keys`` `[B, n units, G, I]`, times ``scale``.

    ``summed``: one chooser adds up its J heads, rectified, by ``weights`` `[B, T, J]` where there are any; else each
    head chooses by itself, J / G heads by the same keys. Of the ``units`` keys of a block the best counts.
    """

    queries: Tensor
    keys: Tensor
    weights: Tensor | None = None
    summed: bool = False
    units: int = 1
    scale: float = 1.0

    @property
    def alike(self) -> Products:
        """Without gradients, queries and keys in the wider of their dtypes."""
        dtype = torch.promote_types(self.queries.dtype, self.keys.dtype)
        weights = None if self.weights is None else self.weights.detach()
        queries, keys = self.queries.detach().to(dtype), self.keys.detach().to(dtype)
        return replace(self, queries=queries, keys=keys, weights=weights)
