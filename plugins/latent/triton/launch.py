"""Attention of few tokens over latents on Triton kernels: the differentiable op."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import arch_of
from archsearch.ops.triton.decode import merge_splits
from archsearch.ops.triton.operands import heads_end_to_end, precision_of
from archsearch.ops.triton.step import query_tile, shares_of_rows

from ..absorbed import attend_rows
from .step import latent_splits
from .table import SHARED, TABLE


def run(q: Tensor, rows: Tensor, positions: Tensor, *, rank: int, scale: float) -> Tensor:
    """`absorbed.attend_rows` by kernels, `[B, T, H, C]`, in the dtype of q or, where it is on, of autocast; nothing
    waits for the device."""
    if torch.is_autocast_enabled(q.device.type):
        q = q.to(torch.get_autocast_dtype(q.device.type))
    out: Tensor = latent_step(q, rows, positions, rank, scale)
    return out


@torch.library.custom_op("archsearch::latent_step", mutates_args=())
def latent_step(q: Tensor, rows: Tensor, positions: Tensor, rank: int, scale: float) -> Tensor:
    """`[B, T, H, C]` of q `[B, T, H, C + R]` and rows `[B, S, C + R]` of any floating dtype."""
    batch, tokens, heads, width = q.shape
    key = TABLE.key(arch_of(q.device), rank)
    row = TABLE.row(key, q.dtype)
    decode, merge = row["decode"], row["merge"]
    o = torch.empty(batch, tokens, heads, rank, dtype=q.dtype, device=q.device)
    if not o.numel():
        return o
    block_g, block_n, held = query_tile(heads, decode), decode.tiles["N"], rows.shape[1]
    programs = batch * tokens * triton.cdiv(heads, block_g)
    fill, most, splits = shares_of_rows(programs, held, block_n, q.device)
    merged = splits > 1
    partial, lse = (
        torch.empty(batch, tokens, heads, splits, *wide, dtype=torch.float32, device=q.device) if merged else o
        for wide in ((rank,), ())
    )
    lengths, lying = (positions + 1).contiguous(), heads_end_to_end(rows[:, :, None])
    latent_splits[(programs * splits,)](
        q.contiguous(),
        lying,
        lengths,
        o,
        partial,
        lse,
        scale / math.log(2),
        held,
        heads,
        tokens,
        lying.stride(0) // width,
        lying.stride(1) // width,
        fill,
        most,
        splits,
        D=width,
        DV=rank,
        BLOCK_D=key[1],
        BLOCK_K=SHARED,
        BLOCK_G=block_g,
        BLOCK_N=block_n,
        MERGED=merged,
        PRECISION=precision_of(q),
        num_warps=decode.num_warps,
        num_stages=decode.num_stages,
    )
    if merged:
        merge_splits[(batch * tokens * heads,)](
            partial,
            lse,
            lengths,
            o,
            held,
            heads,
            fill,
            most,
            splits,
            DV=rank,
            BLOCK_D=key[1],
            BLOCK_S=merge.tiles["S"],
            BLOCK_N=block_n,
            num_warps=merge.num_warps,
            num_stages=merge.num_stages,
        )
    return o


@latent_step.register_fake
def _fake(q: Tensor, rows: Tensor, positions: Tensor, rank: int, scale: float) -> Tensor:
    return q.new_empty(*q.shape[:3], rank)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, rows, positions, ctx.rank, ctx.scale = inputs
    ctx.save_for_backward(q, rows, positions)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Of the form in PyTorch: few queries a sequence are no case for a kernel."""
    q, rows, positions = ctx.saved_tensors
    leaves = [x.detach().requires_grad_() for x in (q, rows)]
    with torch.enable_grad():
        out = attend_rows(leaves[0], leaves[1].to(q.dtype), positions, rank=ctx.rank, scale=ctx.scale)
    return *torch.autograd.grad(out, leaves, grad), None, None, None


latent_step.register_autograd(_backward, setup_context=_remember)
