"""Writes of the delta rules: what their removals and values are made of, one layer for each of `REMOVALS`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .decays import Dims
from .gates import write_strength
from .removals import RemovalForm
from .tokens import Removal, Tokens
from .unit_length import unit_length

CORRECTION = 0.02
"""Where Comba's share of the key in the query starts: its code has 1, and names 0.02 as better in small models."""


class DeltaWrite(nn.Module):
    """Tokens of a delta rule from those of q, k and v `[B, T, H, ...]`, and the features `[B, T, ...]` that the layer's
    projection makes for it."""

    def __init__(self, form: RemovalForm, dims: Dims, most: int) -> None:
        super().__init__()
        self.dims, self.most = dims, most

    def forward(self, x: Tensor, tokens: Tokens) -> Tokens:
        raise NotImplementedError

    def strength(self, x: Tensor) -> Tensor:
        """beta in (0, 1), or in (0, 2) (arXiv 2411.12537), of the shape of x."""
        beta = write_strength(x)
        return beta if self.most == 1 else self.most * beta


class KeyWrite(DeltaWrite):
    """beta `[B, T, H]` alone."""

    def forward(self, x: Tensor, tokens: Tokens) -> Tokens:
        return replace(tokens, beta=self.strength(x))


class ChannelWrite(DeltaWrite):
    """Gated DeltaNet-2: an erase gate a key channel and a write gate a value channel."""

    def forward(self, x: Tensor, tokens: Tokens) -> Tokens:
        heads, key_dim, value_dim = self.dims
        erase, write = torch.split(x, [heads * key_dim, heads * value_dim], dim=-1)
        read = self.strength(erase).unflatten(-1, (heads, key_dim)) * tokens.k
        written = write_strength(write).unflatten(-1, (heads, value_dim)) * tokens.v
        return replace(tokens, v=written.to(tokens.v.dtype), removal=Removal(read=read))


class FeedbackWrite(DeltaWrite):
    """Comba: a share of beta is taken away, the key's part taken out of the query."""

    def __init__(self, form: RemovalForm, dims: Dims, most: int) -> None:
        super().__init__(form, dims, most)
        self.share = nn.Parameter(torch.ones(dims.heads))
        self.correction = nn.Parameter(torch.full((dims.heads,), CORRECTION))

    def forward(self, x: Tensor, tokens: Tokens) -> Tokens:
        beta = self.strength(x)
        read = (beta * self.share.float().sigmoid())[..., None] * tokens.k
        q = tokens.q - (self.correction[:, None] * tokens.k).to(tokens.q.dtype)
        written = (beta[..., None] * tokens.v).to(tokens.v.dtype)
        return replace(tokens, q=q, v=written, removal=Removal(read=read, early=True))


class RateWrite(DeltaWrite):
    """RWKV-7: a removal key of its own, a rate a channel, and a written key that follows the rate."""

    def __init__(self, form: RemovalForm, dims: Dims, most: int) -> None:
        super().__init__(form, dims, most)
        channels = dims.heads * dims.key_dim
        self.up = nn.Linear(form.rank(dims), channels)
        self.removed = nn.Parameter(torch.full((channels,), 0.7))
        self.follows = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, tokens: Tokens) -> Tokens:
        heads = (self.dims.heads, self.dims.key_dim)
        rate = write_strength(self.up(x)).unflatten(-1, heads)
        read = unit_length(tokens.k * self.removed.unflatten(-1, heads).to(tokens.k.dtype))
        written = tokens.k * (1 + (rate - 1) * self.follows.unflatten(-1, heads))
        removal = Removal(read=read, along=rate * read, early=True)
        return replace(tokens, k=written.to(tokens.k.dtype), removal=removal)


WRITES: dict[str, type[DeltaWrite]] = {
    "key": KeyWrite,
    "channel": ChannelWrite,
    "feedback": FeedbackWrite,
    "rate": RateWrite,
}
