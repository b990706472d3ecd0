"""Mixture of block attention of one token a sequence on Triton kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import arch_of
from archsearch.ops.block_cache import BlockCache
from archsearch.ops.triton.launch.attention import options
from archsearch.ops.triton.operands import rows_of_cache
from archsearch.ops.triton.parts import merge_parts

from ...ops import step_by_gathering
from ..step import attend_step, rank_step
from ..table import FEW, SPLITS, TABLE


@torch.library.custom_op("archsearch::moba_step", mutates_args=())
def moba_step(
    q: Tensor, k: Tensor, v: Tensor, means: Tensor, lengths: Tensor, block_size: int, top_k: int, scale: float
) -> Tensor:
    """`ops.moba_attention_step`, `[B, Hq, D]`, for caches of any dtype."""
    (batch, heads, dim), slots, key = q.shape, top_k - 1, TABLE.key(arch_of(q.device), q.shape[2])
    lengths = lengths.contiguous()
    q, row = q.contiguous(), TABLE.row(key, q.dtype)
    runs = -(-block_size // row["attend_step"].tiles["N"])
    splits = SPLITS[means.shape[1] > FEW]
    sizes = {
        "HEADS": heads,
        "GROUP": heads // k.shape[2],
        "SLOTS": slots,
        "SLOTS_UP": 1 << max(0, slots - 1).bit_length(),
        "SPLITS": splits,
        "D": dim,
        "WIDTH": key[1],
    }
    ranks = torch.empty(batch, heads, splits, sizes["SLOTS_UP"], dtype=torch.int64, device=q.device)
    if slots:
        means, *steps = rows_of_cache(means)
        rank_step[splits, heads, batch](
            q,
            means,
            lengths,
            ranks,
            block_size,
            *steps,
            -(-means.shape[1] // splits),
            **sizes,
            **options(row["rank_step"]),
        )
    pieces = top_k * runs
    parts = torch.empty(batch, heads, pieces, dim, dtype=torch.float32, device=q.device)
    norms = torch.empty(batch, heads, pieces, dtype=torch.float32, device=q.device)
    (k, *k_steps), (v, *v_steps) = rows_of_cache(k), rows_of_cache(v)
    attend_step[pieces, heads, batch](
        q,
        k,
        v,
        lengths,
        ranks,
        parts,
        norms,
        scale / math.log(2),
        block_size,
        *k_steps,
        *v_steps,
        runs,
        **sizes,
        **options(row["attend_step"]),
    )
    o = torch.empty_like(q)
    merge_parts[(batch * heads,)](parts, norms, o, pieces, D=dim, WIDTH=key[1], **options(row["merge_step"]))
    return o


@moba_step.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, means: Tensor, lengths: Tensor, block_size: int, top_k: int, scale: float
) -> Tensor:
    return q.new_empty(q.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.block_size, ctx.top_k, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    """Of the form in PyTorch: one query a sequence is no case for a kernel."""
    q, k, v, means, lengths = ctx.saved_tensors
    leaves = q, k, v = [x.detach().requires_grad_() for x in (q, k, v)]
    with torch.enable_grad():
        cache = BlockCache(k=k, v=v, means=means, lengths=lengths)
        out = step_by_gathering(q, cache, block_size=ctx.block_size, top_k=ctx.top_k, scale=ctx.scale)
    return *torch.autograd.grad(out, leaves, g), *(None,) * 5


moba_step.register_autograd(_backward, setup_context=_setup_context)
