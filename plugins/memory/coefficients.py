"""How much of each gradient, of the weights and of the momentum is left at each token of a mini-batch.

With S_t = n_t S_(t-1) - r_t g_t and M_t = a_t M_(t-1) + S_t (without momentum n = 0), where all g are known,

    M_t = A_t M_0 + E_t S_0 - sum_(s <= t) K_ts g_s,   K_ts = sum_(s <= i <= t) a_(i+1)..a_t n_(s+1)..n_i r_s

(Titans, arXiv 2501.00663, section 3.2, where K and E are told as products of matrices.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_FORGOTTEN = -1e3
"""A log decay below which nothing is left, so that -inf may be given."""


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Of mini-batches of b tokens: ``written`` K `[..., b, b]`; ``kept`` A and ``carried`` E `[..., b, 1]`, None where
    nothing is forgotten or there is no momentum; at the last token, of the momentum, ``pushed`` `[..., b, 1]` of the
    gradients (negative) and ``coasted`` `[..., 1, 1]` of what there was."""

    written: Tensor
    kept: Tensor | None = None
    carried: Tensor | None = None
    pushed: Tensor | None = None
    coasted: Tensor | None = None

    def unbind(self) -> list[Coefficients]:
        """Those of each mini-batch, along the first axis."""
        parts: dict[str, Any] = {name: x.unbind() for name, x in vars(self).items() if x is not None}
        return [
            Coefficients(**{name: part[index] for name, part in parts.items()}) for index in range(len(self.written))
        ]


def coefficients(
    rate: Tensor, log_keep: Tensor | None, log_momentum: Tensor | None, real: Tensor | None
) -> Coefficients:
    """Of rates and the logs of a and n `[..., b]`, in whose place there is None for no forgetting or no momentum.

    ``real`` `[..., b]` bool: the tokens that are there; others must have a rate and logs of 0, and change nothing.
    """
    size, given = rate.shape[-1], rate[..., None, :]
    lower = torch.ones(size, size, dtype=rate.dtype, device=rate.device).tril()
    of_weights, kept = (lower, None) if log_keep is None else _pairs(log_keep)
    if log_momentum is None:
        return Coefficients(written=of_weights * given, kept=kept)
    of_momentum, coasted = _pairs(log_momentum)
    if real is not None:
        of_weights = of_weights * real[..., None, :].to(rate.dtype)
    return Coefficients(
        written=(of_weights @ of_momentum) * given,
        kept=kept,
        carried=of_weights @ coasted,
        pushed=-(of_momentum[..., -1:, :] * given).mT,
        coasted=coasted[..., -1:, :],
    )


def _pairs(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Decays from after token s up to t `[..., b, b]`, zero above the diagonal, and from the start `[..., b, 1]`.

    Summed in float64, where a difference keeps a small gate beside large ones."""
    sums = logs.clamp(min=_FORGOTTEN).cumsum(-1, dtype=torch.float64)
    apart = sums[..., :, None] - sums[..., None, :]
    above = torch.ones(apart.shape[-2:], dtype=torch.bool, device=logs.device).triu(1)
    pairs = apart.masked_fill(above, -torch.inf).to(logs.dtype).exp()
    return pairs, sums.to(logs.dtype).exp()[..., None]
