"""Chunks: tokens laid out so that those of a chunk and head are the rows of a matrix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..tokens import CanonicalTokens


def chunked(tokens: CanonicalTokens, size: int, scale: float) -> CanonicalTokens:
    """q, times `scale`, k and v `[N, B, H, C, ...]`, zeros after the last token, and the gates alike.

    Constant log decays are those of the first chunk, `[1, 1, H, C, 1]`; those of the last chunk follow where it is
    short and not the only one, `[2, 1, H, C, 1]`.
    """
    log_decay, length = tokens.log_decay, tokens.q.shape[1]
    if log_decay is not None and tokens.decay == "constant" and length > size:
        short = length % size
        log_decay = log_decay[:, : size + short]
    return CanonicalTokens(
        q=_to_chunks(tokens.q, size, scale),
        k=_to_chunks(tokens.k, size),
        v=_to_chunks(tokens.v, size),
        log_decay=None if log_decay is None else _to_chunks(log_decay, size),
        beta=None if tokens.beta is None else _to_chunks(tokens.beta, size),
        decay=tokens.decay,
        removal=None if tokens.removal is None else tokens.removal.map(lambda x: _to_chunks(x, size)),
    )


def _to_chunks(x: Tensor, size: int, scale: float = 1.0) -> Tensor:
    """`[B, T, H, ...]` to `[N, B, H, C, ...]`, zeros after the last token."""
    short = -x.shape[1] % size
    if short:
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, short))
    x = x.unflatten(1, (-1, size)).transpose(2, 3).transpose(0, 1)
    if scale == 1.0:
        return x.contiguous()
    if not torch.is_grad_enabled():
        return _scaled(x, scale)
    scaled: Tensor = _Scaled.apply(x, scale)  # type: ignore[no-untyped-call]
    return scaled


def _scaled(x: Tensor, scale: float) -> Tensor:
    return torch.mul(x, scale, out=x.new_empty(x.shape))


class _Scaled(torch.autograd.Function):
    """`x` times a number, dense: the copy and the product in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return _scaled(x, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None
