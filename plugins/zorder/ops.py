"""Attention by a Cauchy kernel over chosen tokens and a mean of the past: the pure op."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsearch.ops.impl import choose_impl
from archsearch.ops.pieces import pieces

OP = "cauchy_attention"
WHY = "a mask over few keys, chosen rows over many"
PIECE_TOKENS = 256
"""Queries of a piece at most."""
KEYS_A_ROW = 8
"""Keys for each that is seen, up to which a mask over all of them costs less than gathering rows."""


def cauchy_attention(
    q: Tensor,
    keys: tuple[Tensor, Tensor],
    means: tuple[Tensor, Tensor],
    chosen: Tensor,
    width: Tensor,
    *,
    impl: str = "auto",
) -> Tensor:
    """Means of values weighed by 1 / (|q - k|^2 + width^2), `[B, T, Hq, D]`.

    q `[B, T, Hq, d]`; ``keys`` are `[B, S, Hkv, d]` with their values `[B, S, Hkv, D]`, of which each query sees the
    ``chosen`` `[B, Hq, T, R]`, none twice, -1 for none; ``means`` `[B, T, Hkv, d]` and `[B, T, Hkv, D]` are one more
    pair, which it always sees. ``width`` is a scalar above 0. ``impl`` "reference" masks all pairs. Raises
    `OptionsError`, `KernelUnavailableError`. ZETA, arXiv 2501.14577, section 3.
    """
    named = choose_impl(OP, impl, why=WHY)
    count, total = q.shape[1], keys[0].shape[1]
    if not q.numel():
        return q[..., :1] * 0 + means[1].repeat_interleave(q.shape[2] // means[1].shape[2], 2)
    few = count > 1 and total <= KEYS_A_ROW * chosen.shape[3]
    form = _masked if named == "reference" or few else _gathered
    held = q.shape[2] * (total if form is _masked else chosen.shape[3] * keys[1].shape[3])
    parts = pieces(count, len(q) * held, longest=PIECE_TOKENS)

    def attend(part: slice, *tensors: Tensor) -> Tensor:
        return form(part, *tensors, chosen=chosen)

    given = (q, *keys, *means, width)
    if len(parts) == 1:
        return attend(parts[0], *given)
    return torch.cat([checkpoint(attend, part, *given, use_reentrant=False) for part in parts], dim=1)


def _kernel(q: Tensor, k: Tensor, width: Tensor) -> Tensor:
    """1 / (|q - k|^2 + width^2) of two tensors `[..., d]` that broadcast, in float32 at least."""
    wide = torch.promote_types(q.dtype, torch.float32)
    return (q.to(wide) - k.to(wide)).square().sum(-1).add(width.to(wide).square()).reciprocal()


def _by_head(x: Tensor, heads: int) -> Tensor:
    """`[B, T, Hkv, ...]` as `[B, Hq, T, ...]`."""
    return x.repeat_interleave(heads // x.shape[2], 2).transpose(1, 2)


def _masked(
    part: slice, q: Tensor, k: Tensor, v: Tensor, mean_k: Tensor, mean_v: Tensor, width: Tensor, *, chosen: Tensor
) -> Tensor:
    heads, asked = q.shape[2], q[:, part].transpose(1, 2)
    picked, total = chosen[:, :, part], k.shape[1]
    seen = torch.zeros(*picked.shape[:3], total + 1, dtype=torch.bool, device=q.device)
    seen = seen.scatter_(3, picked % (total + 1), True)[..., :total]
    weights = _kernel(asked[:, :, :, None], _by_head(k, heads)[:, :, None], width) * seen
    return _mixed(weights, _by_head(v, heads), asked, (mean_k[:, part], mean_v[:, part]), width)


def _gathered(
    part: slice, q: Tensor, k: Tensor, v: Tensor, mean_k: Tensor, mean_v: Tensor, width: Tensor, *, chosen: Tensor
) -> Tensor:
    heads, asked = q.shape[2], q[:, part].transpose(1, 2)
    picked = chosen[:, :, part]
    seen, rows = picked >= 0, picked.clamp(min=0)
    batch = torch.arange(len(q), device=q.device)[:, None, None, None]
    head = (torch.arange(heads, device=q.device) // (heads // k.shape[2]))[:, None, None]
    keys, values = (torch.where(seen[..., None], x[batch, rows, head], 0).to(q.dtype) for x in (k, v))
    weights = _kernel(asked[:, :, :, None], keys, width) * seen
    return _mixed(weights[:, :, :, None], values, asked, (mean_k[:, part], mean_v[:, part]), width)


def _mixed(weights: Tensor, values: Tensor, asked: Tensor, means: tuple[Tensor, Tensor], width: Tensor) -> Tensor:
    """`[B, t, Hq, D]` of weights `[B, Hq, t, S]` of values `[B, Hq, S, D]`, or `[B, Hq, t, 1, R]` of values
    `[B, Hq, t, R, D]`, beside the means."""
    mean_k, mean_v = (_by_head(x, asked.shape[1]) for x in means)
    own = _kernel(asked, mean_k, width)[..., None]
    total = weights.sum(-1).view(own.shape) + own
    mixed = (weights @ values.to(weights.dtype)).view(*own.shape[:3], -1)
    return ((mixed + own * mean_v) / total).to(asked.dtype).transpose(1, 2)
