"""Softmax attention under a mask.

Tensors are q `[B, T, Hq, D]`, k and v `[B, S, Hkv, D]`, Hq a multiple of Hkv; the T queries stand at the last T of
the S keys. ``visible`` masks are boolean, `[T, S]` or `[B, T, S]`; every query must see at least one key.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.errors import SpecError

_MANY_NUMBERS = 2**21
"""Keys of a cache, by their numbers, whose products are faster apart: measured with one and two threads."""


class ShapeError(SpecError, ValueError):
    """Tensors whose shapes do not fit together."""


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """`[T, S]`: the queries are the last of the keys' tokens, and each sees itself and what came before."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float | None = None, sink: Tensor | None = None
) -> Tensor:
    """softmax(scale q k^T) v over the visible keys by explicit products, `[B, T, Hq, Dv]`; float32 at least.

    ``scale`` is D^-0.5 unless given. ``sink`` `[Hq]`: a logit a head that joins the sum of the softmax, with no value.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    groups = k.shape[2]
    grouped = torch.unflatten(q.to(dtype), 2, (groups, -1))
    scores = torch.einsum("bthgd,bshd->bhgts", grouped, k.to(dtype)) * scale_of(q, scale)
    mask = visible if visible.dim() == 2 else visible[:, None, None]
    scores = scores.masked_fill(~mask, -torch.inf)
    if sink is None:
        weights = scores.softmax(-1)
    else:
        logit = sink.to(dtype).view(groups, -1, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat((scores, logit), dim=-1).softmax(-1)[..., :-1]
    return torch.einsum("bhgts,bshd->bthgd", weights, v.to(dtype)).flatten(2, 3).to(q.dtype)


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None = None,
    scale: float | None = None,
    sink: Tensor | None = None,
) -> Tensor:
    """The same by `scaled_dot_product_attention`, which knows no sink logit: with one, explicitly. Without ``visible``
    the causal mask of T = S tokens."""
    if sink is not None:
        visible = causal_mask(q.shape[1], k.shape[1], q.device) if visible is None else visible
        return explicit_attention(q, k, v, visible, scale, sink)
    mask = visible[:, None] if visible is not None and visible.dim() == 3 else visible
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=visible is None,
        scale=scale_of(q, scale),
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


def all_rows_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """One query a sequence, q `[B, Hq, D]`, over all rows of k and v, `[B, Hq, Dv]`."""
    group = q.shape[1] // k.shape[2]
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if _by_products(k, v, group):
        queries = q.unflatten(1, (-1, group)).mT * scale
        by_group: Tensor = (k @ queries).mT.softmax(-1) @ v
        return by_group.flatten(1, 2)
    out = F.scaled_dot_product_attention(q[:, :, None], k, v, scale=scale, enable_gqa=group > 1)
    return out[:, :, 0]


def _by_products(k: Tensor, v: Tensor, group: int) -> bool:
    """Whether two products with keys and values `[B, Hkv, S, D]` are faster than the fused kernel of a CPU: where the
    rows come from memory, the more so where each serves a group of heads. In bfloat16 their scores would be rounded;
    caches whose heads do not lie end to end would be copied."""
    if k.device.type != "cpu" or k.dtype.itemsize < 4 or torch.is_autocast_enabled("cpu"):
        return False
    return k.numel() * group**2 > _MANY_NUMBERS and all(map(_is_batched, (k, v)))


def _is_batched(x: Tensor) -> bool:
    """Whether a product takes `[B, H, S, D]` as B H matrices without a copy."""
    return x.shape[0] == 1 or x.shape[1] == 1 or x.stride(0) == x.shape[1] * x.stride(1)


def scale_of(q: Tensor, scale: float | None) -> float:
    """``scale``, or D^-0.5 of queries `[..., D]` where none is given (arXiv 1706.03762, equation 1)."""
    return float(q.shape[-1] ** -0.5) if scale is None else scale
