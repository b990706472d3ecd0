"""Norms of what is read: of the root mean square, or of each head's mean and variance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import ModelShape

from .options import LinearOptions


class HeadNorm(nn.Module):
    """Heads `[..., H, V]` less their means, over the roots of their variances: group norm (arXiv 1803.08494) of groups
    that are heads, with a weight and a bias of each channel where it is ``trained``."""

    def __init__(self, heads: int, width: int, *, eps: float, trained: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads * width)) if trained else None
        self.bias = nn.Parameter(torch.zeros(heads * width)) if trained else None

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape, in the dtype of the weights where there are some."""
        if self.weight is None or self.bias is None:
            return F.layer_norm(x, x.shape[-1:], eps=self.eps)
        normed = F.layer_norm(x.to(self.weight.dtype), x.shape[-1:], eps=self.eps)
        return torch.addcmul(self.bias.view(x.shape[-2:]), normed, self.weight.view(x.shape[-2:]))


def norm_of(options: LinearOptions, shape: ModelShape) -> nn.RMSNorm | HeadNorm | None:
    """The norm of a layer of `shape`."""
    heads, _, width = options.dims(shape)
    kind, eps = options.output_norm, options.norm_eps
    if kind in ("layer", "group"):
        return HeadNorm(heads, width, eps=eps, trained=kind == "group")
    normed = options.norm_width(shape)
    return nn.RMSNorm(normed, eps=eps) if normed else None
