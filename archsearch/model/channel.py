"""Channel mixers: SwiGLU and the fine-grained mixture of experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.arch import ModelSpec
from archsearch.model.context import Context

BALANCE = "moe_balance"
"""The loss that a mixture of experts adds."""


class SwiGLU(nn.Module):
    """``W_down (silu(W_gate x) * W_up x)`` (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """`x` `[..., D]` to `[..., D]`."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class MixtureOfExperts(nn.Module):
    """Shared experts that see every token, and routed ones of which each token takes its best few.

    Fine-grained and shared experts after DeepSeekMoE (arXiv 2401.06066): softmax scores, the chosen ones not
    renormalised, and its balance loss (equation 12-14, by expert), added to the context as ``moe_balance``.
    """

    balance_weight = 0.01

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        d, hidden, count = model.d_model, model.expert_dim, model.n_experts
        self.per_token = model.experts_per_token
        self.router = nn.Linear(d, count, bias=False)
        self.experts = nn.ModuleList(SwiGLU(d, hidden) for _ in range(count))
        self.shared = nn.ModuleList(SwiGLU(d, hidden) for _ in range(model.shared_experts))

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """`x` `[..., D]` to `[..., D]`."""
        flat = x.reshape(-1, x.shape[-1])
        scores = self.router(flat).float().softmax(-1)
        weights, chosen = scores.topk(self.per_token, dim=-1)
        if self.training:
            ctx.add_loss(BALANCE, self._balance(scores, chosen))
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            token, slot = (chosen == index).nonzero(as_tuple=True)
            if token.numel():
                weighted = expert(flat[token], ctx) * weights[token, slot, None].to(flat.dtype)
                out = out.index_add(0, token, weighted.to(out.dtype))
        for expert in self.shared:
            out = out + expert(flat, ctx)
        return out.view_as(x)

    def _balance(self, scores: Tensor, chosen: Tensor) -> Tensor:
        count = scores.shape[-1]
        load = torch.bincount(chosen.flatten(), minlength=count).to(scores.dtype) * count / chosen.numel()
        return self.balance_weight * (load * scores.mean(0)).sum()


def build_channel_mixer(model: ModelSpec) -> SwiGLU | MixtureOfExperts | None:
    """The channel mixer that a backbone asks for, None for "none"."""
    if model.channel_mixer == "swiglu":
        return SwiGLU(model.d_model, model.ffn_dim)
    if model.channel_mixer == "moe":
        return MixtureOfExperts(model)
    return None
