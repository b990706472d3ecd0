"""FAVOR+: positive random features, orthogonal by blocks, whose products estimate the exponential of q . k."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS = 1e-6
"""Added to every feature, as the paper's code does, so that no sum of them vanishes."""

_MOST = 40.0
"""Of an exponent: products of two features, and sums of them, stay finite."""


class Favor(nn.Module):
    """phi(x)_i = (exp(w_i . x' - |x'|^2 / 2) + 1e-6) / sqrt(M) with x' = x K^-1/4 (Performer, arXiv 2009.14794,
    lemma 1 and section 2.4), so that phi(q) . phi(k) estimates exp(q . k / sqrt(K)).

    w_i, drawn once of ``seed`` and not trained, are orthogonal within each K of them, and as long as normal vectors.
    Queries are scaled so that the largest of their features is about 1: the normaliser takes that out again.
    """

    directions: Tensor

    def __init__(self, key_dim: int, features: int, seed: int) -> None:
        super().__init__()
        self.register_buffer("directions", orthogonal_directions(key_dim, features, seed))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """q and k `[..., H, K]` to features `[..., H, M]`, float32 at least."""
        of_q, of_k = self._exponents(q), self._exponents(k)
        of_q = of_q - of_q.detach().amax(-1, keepdim=True)
        count = self.directions.shape[0] ** -0.5
        return (of_q.exp() + EPS) * count, (of_k.clamp(max=_MOST).exp() + EPS) * count

    def _exponents(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32)) * x.shape[-1] ** -0.25
            exponents: Tensor = x @ self.directions.to(x.dtype).mT - x.square().sum(-1, keepdim=True) / 2
        return exponents


def orthogonal_directions(key_dim: int, features: int, seed: int) -> Tensor:
    """`[M, K]`: rows of orthogonal matrices, scaled by the lengths of normal vectors."""
    draw = torch.Generator().manual_seed(seed)
    blocks = [_rotation(key_dim, draw) for _ in range(-(-features // key_dim))]
    lengths = torch.randn(features, key_dim, generator=draw, dtype=torch.float64).norm(dim=-1)
    directions: Tensor = torch.cat(blocks)[:features] * lengths[:, None]
    return directions.float()


def _rotation(size: int, draw: torch.Generator) -> Tensor:
    """An orthogonal matrix, all alike likely: without the signs of R its first entries would have one sign."""
    rotation, upper = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))
    signed: Tensor = rotation * upper.diagonal().sign()
    return signed
