"""Routes: which memories each token meets, and the tokens of each memory as rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.model import Context

BALANCE = 0.01
"""Weight of the balance loss."""


@dataclass(frozen=True, kw_only=True)
class Routes:
    """Of each token the memories that it meets, and their weights, `[N, S]`."""

    memory: Tensor
    weight: Tensor


class Router(nn.Module):
    """The ``used`` of the ``memories`` that a token is for (MoM, arXiv 2502.13685, section 3): softmax of a
    projection, of which the largest, divided by their sum, are the weights; of one alone, the probability itself, from
    which the router learns."""

    def __init__(self, d_model: int, memories: int, used: int) -> None:
        super().__init__()
        self.memories, self.used = memories, used
        self.scores = nn.Linear(d_model, memories, bias=False) if memories > 1 else None

    def forward(self, x: Tensor, ctx: Context) -> Routes:
        """Of tokens `[N, D]`; in training adds the balance loss (Switch, arXiv 2101.03961, equations 4 to 6)."""
        count = len(x)
        if self.scores is None:
            ones = x.new_ones(count, 1, dtype=torch.promote_types(x.dtype, torch.float32))
            return Routes(memory=torch.zeros_like(ones, dtype=torch.int64), weight=ones)
        share = self.scores(x).to(torch.promote_types(x.dtype, torch.float32)).softmax(-1)
        weight, memory = share.topk(self.used, dim=-1)
        if self.used > 1:
            weight = weight / weight.sum(-1, keepdim=True)
        if self.training and count:
            load = F.one_hot(memory, self.memories).to(share.dtype).mean((0, 1))
            ctx.add_loss("memory_balance", BALANCE * self.memories * (load * share.mean(0)).sum())
        return Routes(memory=memory, weight=weight)


@dataclass(frozen=True, kw_only=True)
class MemoryRows:
    """Tokens in rows, one for each sequence and memory: row g has ``counts[g]`` tokens, none more than ``longest``.

    Token n stands at the ``places[n]`` `[N, S]` of the flattened rows, weighed by ``weight[n]``; place p holds token
    ``token[p]``, N where there is none.
    """

    places: Tensor
    weight: Tensor
    token: Tensor
    counts: Tensor
    longest: int

    @classmethod
    def of(cls, routes: Routes, sequence: Tensor, sequences: int, memories: int, most: int) -> MemoryRows:
        """Of tokens in their order, each of its ``sequence`` `[N]`, none of which has more than ``most`` tokens."""
        row = (sequence[:, None] * memories + routes.memory).flatten()
        order = row.argsort(stable=True)
        counts = torch.zeros(sequences * memories, dtype=torch.int64, device=row.device)
        counts = counts.index_add(0, row, torch.ones_like(row))
        read = counts.numel() and not torch.compiler.is_compiling()
        longest = int(counts.max()) if read else most
        ranks = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
        flat = row * longest + torch.empty_like(row).index_copy(0, order, ranks)
        token = torch.full((len(counts) * longest,), len(routes.memory), device=row.device)
        token = token.index_copy(0, flat, torch.arange(len(row), device=row.device) // routes.memory.shape[1])
        places = flat.view_as(routes.memory)
        return cls(places=places, weight=routes.weight, token=token, counts=counts, longest=longest)

    @property
    def filled(self) -> Tensor:
        """`[G, L]`: whether a place holds a token."""
        return torch.arange(self.longest, device=self.counts.device) < self.counts[:, None]

    def gather(self, x: Tensor) -> Tensor:
        """Tokens `[N, F]` as rows `[G, L, F]`, zeros where there is none."""
        padded = torch.cat((x, x.new_zeros(1, x.shape[1]))).index_select(0, self.token)
        return padded.view(len(self.counts), self.longest, x.shape[1])

    def scatter(self, x: Tensor) -> Tensor:
        """Rows `[G, L, H, V]` as tokens `[N, H, V]`: of each what its memories give, by their weights, summed."""
        read: Tensor = x.flatten(0, 1).index_select(0, self.places.flatten())
        read = torch.unflatten(read, 0, self.places.shape)
        return (read * self.weight[..., None, None].to(x.dtype)).sum(1)
