"""MetaTokens: learned tokens of the backbone in front of every sequence, which every layer sees and nothing predicts
(Hymba, arXiv 2411.13676, section 2.3)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from archsearch.model.context import Context


class MetaTokens(nn.Module):
    """`count` learned embeddings `[count, D]`; a token of a sequence has so many more before it."""

    def __init__(self, count: int, d_model: int) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.randn(count, d_model) * d_model**-0.5)

    def rows(self, batch: int) -> Tensor:
        """The meta tokens of `batch` sequences, `[B, count, D]`."""
        return self.weight.expand(batch, -1, -1)

    def before(self, x: Tensor, ctx: Context) -> tuple[Tensor, Context, Tensor]:
        """Embeddings `[B, T, D]` with the meta tokens in front of every sequence, the context of so many tokens, and
        the rows `[T]` among them where those of `x` are. Positions that `ctx` gives move on by the meta tokens."""
        if ctx.cu_seqlens is not None:
            longer, after, rows = self._packed(x, ctx, ctx.cu_seqlens.to(x.device))
        else:
            rows = torch.arange(self.count, self.count + x.shape[1], device=x.device)
            longer, after = torch.cat((self.rows(len(x)).to(x.dtype), x), 1), ctx
        if ctx.positions is not None:
            order = replace(after, positions=None).order_of(longer)
            after = replace(after, positions=order.index_copy(1, rows, ctx.positions + self.count))
        return longer, after, rows

    def _packed(self, x: Tensor, ctx: Context, starts: Tensor) -> tuple[Tensor, Context, Tensor]:
        count = starts.shape[0] - 1
        tokens = torch.arange(x.shape[1], device=x.device)
        rows = tokens + (torch.searchsorted(starts[1:], tokens, right=True) + 1) * self.count
        bounds = starts + torch.arange(count + 1, device=x.device) * self.count
        meta = (bounds[:-1, None] + torch.arange(self.count, device=x.device)).flatten()
        longer = x.new_empty(1, x.shape[1] + count * self.count, x.shape[2])
        longer = longer.index_copy(1, meta, self.weight.to(x.dtype).repeat(count, 1)[None]).index_copy(1, rows, x)
        return longer, replace(ctx, cu_seqlens=bounds), rows
