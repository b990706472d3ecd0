"""Several delta steps a token: tokens of one step each, in the order of the tokens (DeltaProduct, arXiv 2502.10297)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .core import Call, Core, Tensors
from .ops import linear_attention_step
from .tokens import Tokens


class StepsCore(Core):
    """As `Core`, of tokens whose k, v and beta have ``steps`` heads for one of q, step after step."""

    def __init__(self, scale: float, steps: int) -> None:
        super().__init__(scale)
        self.steps = steps

    def forward(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`: what the last step of each token reads."""
        bounds = None if call.cu_seqlens is None else call.cu_seqlens * self.steps
        o, after = super().forward(interleaved(tokens, self.steps), replace(call, cu_seqlens=bounds))
        return o[:, self.steps - 1 :: self.steps], after

    def attend_step(self, token: Tokens, before: Tensor) -> tuple[Tensor, Tensor]:
        """As `Core`, step by step."""
        for one in steps_of(token, self.steps):
            o, before = linear_attention_step(one, before, scale=self.scale, in_place=True)
        return o, before


def interleaved(tokens: Tokens, steps: int) -> Tokens:
    """`Tokens` whose k, v and beta have ``steps`` heads for one of q, `[B, T, steps H, ...]` step after step, as tokens
    `[B, T steps, H, ...]`: the first step of each decays, the last one reads."""
    q, k, v, log_decay, beta = tokens.flat
    if log_decay is not None:
        log_decay = log_decay.expand(*q.shape[:2], -1) if log_decay.dim() == 1 else log_decay
        log_decay = _among(log_decay, steps, 0)
    return Tokens(
        _among(q, steps, steps - 1),
        _in_steps(k, steps),
        _in_steps(v, steps),
        log_decay=log_decay,
        beta=None if beta is None else _in_steps(beta, steps),
    )


def steps_of(token: Tokens, steps: int) -> list[Tokens]:
    """The steps of one token a sequence, `Tokens` without T: each reads, the first decays."""
    q, k, v, log_decay, beta = token.flat

    def of(x: Tensor, step: int) -> Tensor:
        return torch.unflatten(x, 1, (steps, -1))[:, step]

    return [
        Tokens(
            q,
            of(k, step),
            of(v, step),
            log_decay=None if step else log_decay,
            beta=None if beta is None else of(beta, step),
        )
        for step in range(steps)
    ]


def _among(x: Tensor, steps: int, place: int) -> Tensor:
    """`x` `[B, T, ...]` at one place of ``steps``, zeros at the others: `[B, T steps, ...]`."""
    rest = (0, 0) * (x.dim() - 2)
    return F.pad(x[:, :, None], (*rest, place, steps - 1 - place)).flatten(1, 2)


def _in_steps(x: Tensor, steps: int) -> Tensor:
    """`[B, T, steps H, ...]` as `[B, T steps, H, ...]`."""
    return torch.unflatten(x, 2, (steps, -1)).flatten(1, 2)
