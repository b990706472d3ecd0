"""Native sparse attention of one token a sequence over its cache: the op of the decode step."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.ops.block_cache import block_rows, gather_rows, rows_attention, write_means

from .ops import choose_blocks, choose_form, gated_sum, mean_weights, weighted


def nsa_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_means: Tensor,
    v_means: Tensor,
    lengths: Tensor,
    *,
    gates: Tensor,
    block_size: int,
    top_k: int,
    window: int,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """`nsa_attention` of one new token a sequence over its cache, `[B, Hq, D]`.

    q `[B, Hq, D]`, gates `[B, Hq, 3]`; k, v `[B, S, Hkv, D]` and the means of both `[B, n, Hkv, D]` of complete blocks,
    of any dtype; lengths `[B]` at least 1, the new token included, whose row is in k and v, and in the means if it
    completes a block. Reads the means of complete blocks, the chosen ones' rows and the window's; the Triton form
    waits for nothing on the device, the others read ``lengths``. Raises `KernelUnavailableError`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if choose_form(q, v, impl) == "triton":
        from .triton.launch.step import nsa_step

        out: Tensor = nsa_step(q, k, v, k_means, v_means, gates, lengths, block_size, top_k, window, scale)
        return out
    return step_by_gathering(
        q, k, v, k_means, v_means, gates, lengths, block_size=block_size, top_k=top_k, window=window, scale=scale
    )


def write_mean(means: Tensor, x: Tensor, lengths: Tensor, *, block_size: int, impl: str = "auto") -> Tensor:
    """`means` `[B, n, Hkv, D]` with that of the block of x `[B, S, Hkv, D]` that the last token completes, if it does.

    lengths `[B]` include the last token. By a kernel where the step's would run, in place; with a gradient to carry,
    in PyTorch.
    """
    differentiable = torch.is_grad_enabled() and (x.requires_grad or means.requires_grad)
    if not differentiable and choose_form(x, x, impl) == "triton":
        from .triton.launch.step import write_mean as launch

        launch(means, x, lengths, block_size)
        return means
    return write_means(means, x, lengths - 1, 1, block_size)


def step_by_gathering(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_means: Tensor,
    v_means: Tensor,
    gates: Tensor,
    lengths: Tensor,
    *,
    block_size: int,
    top_k: int,
    window: int,
    scale: float,
) -> Tensor:
    """`nsa_attention_step` in PyTorch."""
    positions, complete = lengths[:, None] - 1, lengths // block_size
    held = torch.arange(int(complete.max()), device=q.device) < complete[:, None]
    key_means, value_means = (
        torch.where(held[..., None, None], means[:, : held.shape[1]], 0).to(q.dtype) for means in (k_means, v_means)
    )
    weights = mean_weights(q[:, None], key_means, positions, block_size, scale)
    chosen = choose_blocks(weights, positions // block_size, k.shape[2], top_k)[:, :, 0]
    selected, local = _read_rows(q, k, v, chosen, lengths - 1, block_size, window, scale)
    summed = gated_sum(gates[:, None], weighted(weights, value_means), selected[:, None], local[:, None])
    return summed[:, 0]


def _read_rows(
    q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, last: Tensor, block_size: int, window: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Selection and window `[B, Hq, D]` of the token at `last` `[B]`, over one gathering of the rows of both."""
    rows, seen = block_rows(chosen, last, block_size)
    at = last[:, None, None]
    outside = seen & (rows <= at - window)
    near = (at - torch.arange(min(window, int(last.max()) + 1), device=q.device)).expand(*chosen.shape[:2], -1)
    inside = near >= 0
    picked = (near[..., None] // block_size == chosen[:, :, None]).any(-1) & inside
    gathered = torch.cat((near.clamp(min=0), torch.where(outside, rows, at)), dim=-1)
    keys, values = gather_rows(k, v, gathered, q.dtype)
    select, local = torch.cat((picked, outside), dim=-1), torch.cat((inside, torch.zeros_like(outside)), dim=-1)
    return rows_attention(q, keys, values, select, scale), rows_attention(q, keys, values, local, scale)
