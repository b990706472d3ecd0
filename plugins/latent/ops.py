"""Attention through latents: the pure ops, multiplied out and absorbed.

``up`` `[H, 2, D, C]` makes the key and the value `[D]` of each head from a latent `[C]`. ``rows`` `[B, S, C + R]` hold
the latent of each token and the key, R channels, that all heads share. Queries are `[B, T, H, D + R]`.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.impl import choose_attention, choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import causal_mask, explicit_attention, masked_attention, scale_of

from .absorbed import attend_rows
from .triton.table import SHARED, TABLE

OP = "latent_attention"
WHY = "scaled_dot_product_attention over keys and values that are multiplied out"
WHY_ABSORBED = "scaled_dot_product_attention over latents, one head of keys and values"
MOST_TOKENS = 8
"""Queries a sequence up to which "auto" takes the kernels of a decode step, which read the rows for each anew."""


def latent_attention(
    q: Tensor,
    rows: Tensor,
    up: Tensor,
    *,
    cu_seqlens: Tensor | None = None,
    lengths: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Causal attention over keys and values that are multiplied out of their latents, `[B, T, H, D]`.

    The queries lie against the rows as in `archsearch.ops.laid_out.LaidOut`; scores are scaled by (D + R)^-0.5.
    ``impl`` "reference" forms explicit products. Raises `ShapeError`, `OptionsError`, `KernelUnavailableError`.
    DeepSeek-V2, arXiv 2405.04434, equations 9 to 19.
    """
    chosen = choose_impl(OP, impl, why=WHY)
    k, v = multiplied_out(rows, up)
    form = partial(_causal, explicit=chosen == "reference")
    return LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths).each_apart(OP, form)


def latent_attention_absorbed(q: Tensor, rows: Tensor, up: Tensor, positions: Tensor, *, impl: str = "auto") -> Tensor:
    """The same, `[B, T, H, D]`, of queries at `positions` `[B, T]` int64 of their sequences, over latents as they are.

    q (K c) = (q K) c and the sum of weights w (V c) = V (sum of w c): no key and no value is made, so that a decoded
    token reads C + R numbers a row for all heads (arXiv 2405.04434, section 2.1.2). Nothing is read by the host. Raises
    `OptionsError`, `KernelUnavailableError`.

    "triton" reads each row once, as key and as value, in parts that are merged, for up to 64 channels of the shared
    key; "auto" takes it on a card for up to 8 tokens.
    """
    width, rank = up.shape[2:]
    scale = scale_of(q, None)
    plain, shared = torch.split(q, [width, q.shape[-1] - width], dim=-1)
    to_key, to_value = up.unbind(1)
    absorbed = torch.cat((torch.einsum("bthd,hdc->bthc", plain, to_key), shared), dim=-1)
    chosen = _choose_absorbed(absorbed, rows, rank, impl)
    if chosen == "triton":
        from .triton.launch import run

        mixed = run(absorbed, rows, positions, rank=rank, scale=scale)
    else:
        mixed = attend_rows(absorbed, rows, positions, rank=rank, scale=scale, explicit=chosen == "reference")
    return torch.einsum("bthc,hdc->bthd", mixed, to_value)


def _choose_absorbed(q: Tensor, rows: Tensor, rank: int, impl: str) -> str:
    few = q.shape[1] <= MOST_TOKENS
    if rows.shape[-1] - rank > SHARED:
        return choose_impl(TABLE.op, impl, why=f"its kernels hold a shared key of {SHARED} channels at most")
    why = WHY_ABSORBED if few else f"more than {MOST_TOKENS} tokens a sequence are no decode step"
    latents = q[..., :rank], rows[..., :rank]  # the row of the table is that of their width
    return choose_attention(TABLE, *latents, impl, why=why, wanted=few)


def multiplied_out(rows: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """k `[B, S, H, D + R]` and v `[B, S, H, D]` of `rows`."""
    heads, _, width, rank = up.shape
    latent, shared = torch.split(rows, [rank, rows.shape[-1] - rank], dim=-1)
    made = torch.unflatten(latent @ up.flatten(0, 2).mT, -1, (heads, 2, width))
    k, v = made.unbind(3)
    return torch.cat((k, shared[:, :, None].expand(-1, -1, heads, -1)), dim=-1), v


def _causal(q: Tensor, k: Tensor, v: Tensor, *, explicit: bool) -> Tensor:
    queries, keys = q.shape[1], k.shape[1]
    if explicit:
        return explicit_attention(q, k, v, causal_mask(queries, keys, q.device))
    # as wide as the keys: the fused forms of torch take no other values
    wide = F.pad(v, (0, k.shape[-1] - v.shape[-1]))
    mask = None if queries == keys else causal_mask(queries, keys, q.device)
    return masked_attention(q, k, wide, mask)[..., : v.shape[-1]]
