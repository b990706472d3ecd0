"""What blocks are compressed to: means, or what a network makes of them; and a cache with a row for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from archsearch.ops.completed import write_complete
from archsearch.ops.host import readable

from .sizes import NsaSizes

Compress = Callable[[Tensor], Tensor]
"""Of blocks `[B, n, length, H, D]` one row each, `[B, n, H, D]`."""


def means(blocks: Tensor) -> Tensor:
    """`[B, n, H, D]`, the mean of each block."""
    return blocks.mean(2)


class BlockNetwork(nn.Module):
    """W_2 silu(W_1 [x_1 + p_1, .., x_l + p_l]) of the l rows of a block, p learned for each place in it.

    NSA, arXiv 2502.11089, equation 7: "a learnable MLP with intra-block position encoding"; its width, here that of a
    row, and its activation are not told.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(length, width))
        self.inner = nn.Linear(length * width, width, bias=False)
        self.outer = nn.Linear(width, width, bias=False)

    def forward(self, blocks: Tensor) -> Tensor:
        """Blocks `[B, n, length, H, D]` to `[B, n, H, D]`; heads are made by the same weights."""
        rows = (blocks + self.place[:, None].to(blocks.dtype)).transpose(2, 3).flatten(3)
        made: Tensor = self.outer(nn.functional.silu(self.inner(rows)))
        return made


def compressed(x: Tensor, sizes: NsaSizes, compress: Compress) -> Tensor:
    """Rows `[B, n, H, D]` of all complete blocks of x `[B, S, H, D]`."""
    if not sizes.complete(x.shape[1]):
        return x[:, :0] + compress(x.new_zeros(len(x), 1, sizes.of, *x.shape[2:]))[:, :0]
    return compress(x.unfold(1, sizes.of, sizes.every).movedim(-1, 2))


def write_compressed(
    cache: Tensor, rows: Tensor, first: Tensor, lengths: Tensor, count: int, sizes: NsaSizes, compress: Compress
) -> Tensor:
    """`cache` `[B, n, H, D]` with the blocks that `count` tokens after `lengths` `[B]` complete.

    rows `[B, R, H, D]` are those of each sequence's tokens from its `first` `[B]` on, the new ones included.
    """
    begun = (torch.div(lengths - sizes.of, sizes.every, rounding_mode="floor") + 1).clamp(min=0)
    blocks = begun[:, None] + torch.arange(-(-count // sizes.every), device=rows.device)
    complete = blocks * sizes.every + sizes.of <= (lengths + count)[:, None]
    if readable(complete) and not complete.any():
        return cache
    tokens = blocks[..., None] * sizes.every + torch.arange(sizes.of, device=rows.device)
    place = (tokens - first[:, None, None]).clamp(0, rows.shape[1] - 1)
    sequence = torch.arange(len(rows), device=rows.device)[:, None, None]
    return write_complete(cache, blocks, complete, compress(rows[sequence, place]))
