"""Index: small heads that score entries of their own, and how they learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from archsearch.mixer import ModelShape
from archsearch.ops.divergence import block_mass, dense_weights, divergence
from archsearch.ops.index_scores import relu_scores

from .compressor import Compressor
from .ops import Seen
from .options import CompressedOptions


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Small queries `[B, T, J, I]` with their weights `[B, T, J]`, and the index's entries `[B, n, I]`."""

    queries: Tensor
    units: Tensor
    weights: Tensor

    def scores(self, part: slice, count: int) -> Tensor:
        """`[B, 1, t, n]` of a slice of the tokens and the first `count` entries."""
        return relu_scores(self.queries[:, part], self.units[:, :count], self.weights[:, part])


class Index(nn.Module):
    """The indexer of CSA: sum over small heads j of w_j relu(q_j . k_i), k_i entry i of a compressor of its own."""

    def __init__(self, options: CompressedOptions, shape: ModelShape) -> None:
        super().__init__()
        self.heads, self.size = options.index_heads, options.block_size
        self.scale = (options.index_heads * options.index_dim) ** -0.5
        self.query = nn.Linear(options.q_rank or shape.d_model, self.heads * options.index_dim, bias=False)
        self.weights = nn.Linear(shape.d_model, self.heads, bias=False)
        self.compressor = Compressor(shape.d_model, options.index_dim, options, norm=True)

    def ask(self, x: Tensor, low: Tensor, positions: Tensor, units: Tensor) -> Asked:
        """Of tokens `x` `[B, T, D]` at `positions` `[B, T]`, whose queries are made from `low`."""
        queries = self.query(low).unflatten(-1, (self.heads, -1))
        queries = self.compressor.rotary(positions, queries)
        return Asked(queries=queries, units=units, weights=self.weights(x) * self.scale)

    def loss(self, asked: Asked, q: Tensor, seen: Seen, taught: Tensor | None) -> Tensor:
        """The divergence of the scores from what is `taught` `[B, 1, T, T]` of the tokens, summed over each block, else
        from what q `[B, T, H, D]` weighs of the entries where none is dropped; of whole sequences, summed over tokens.
        """
        q, entries, order, size = q.detach(), seen.entries.detach(), seen.order, self.size

        def allowed(part: slice, blocks: int) -> Tensor:
            done = (order[:, part] + 1) // size
            return (torch.arange(blocks, device=q.device) < done[..., None])[:, None]

        def mass(part: slice, blocks: int) -> Tensor:
            if taught is not None:
                return block_mass(taught[:, :, part, : part.stop].float(), size, blocks)
            return dense_weights(q[:, part], entries[:, :blocks, None], allowed(part, blocks), 1)

        def score(part: slice, queries: Tensor, units: Tensor, weights: Tensor) -> Tensor:
            return relu_scores(queries[:, part], units[:, : part.stop // size], weights[:, part])

        return divergence(score, (asked.queries, asked.units, asked.weights), mass, allowed, order.shape[1])
