"""Native sparse attention of one token a sequence on Triton kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import arch_of
from archsearch.ops.triton.launch.attention import options
from archsearch.ops.triton.operands import precision_of, rows_of_cache

from ...sizes import NsaSizes
from ...step import NsaCache, step_by_gathering
from ..step import attend_step, choose_step, means_step, merge_step
from ..table import FEW, SPLITS, TABLE


@torch.library.custom_op("archsearch::nsa_step", mutates_args=())
def nsa_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_means: Tensor,
    v_means: Tensor,
    lengths: Tensor,
    gates: Tensor,
    block_size: int,
    top_k: int,
    window: int,
    scale: float,
) -> Tensor:
    """`step.nsa_attention_step`, `[B, Hq, D]`, for caches of any dtype."""
    q, lengths, key = q.contiguous(), lengths.contiguous(), TABLE.key(arch_of(q.device), q.shape[2])
    row, batch, best = TABLE.row(key, q.dtype), q.shape[0], max(0, top_k - 2)
    splits = SPLITS[k_means.shape[1] > FEW]
    heads, groups = _head_sizes(q, k)
    dims = {"D": q.shape[2], "WIDTH": key[1]}
    choice = {"BEST": best, "BEST_UP": 1 << max(0, best - 1).bit_length(), "SPLITS": splits}
    exact, scale_log2 = {"PRECISION": precision_of(q)}, scale / math.log(2)
    scores, parts, norms = _wide(q, k_means.shape[1]), _wide(q, splits, q.shape[2]), _wide(q, splits)
    ranks = torch.empty(batch, groups, splits, choice["BEST_UP"], dtype=torch.int64, device=q.device)
    (k_means, *k_steps), (v_means, *v_steps) = rows_of_cache(k_means), rows_of_cache(v_means)
    count, share = k_means.shape[1], -(-k_means.shape[1] // splits)
    means_step[splits, groups, batch](
        q,
        k_means,
        v_means,
        lengths,
        scores,
        parts,
        norms,
        scale_log2,
        block_size,
        *k_steps,
        *v_steps,
        count,
        share,
        **heads,
        **dims,
        **exact,
        **options(row["means_step"]),
    )
    if best:
        choose_step[splits, groups, batch](
            scores, norms, lengths, ranks, block_size, count, share, **heads, **choice, **options(row["choose_step"])
        )
    (k, *k_steps), (v, *v_steps) = rows_of_cache(k), rows_of_cache(v)
    tile, window = row["attend_step"].tiles["N"], min(window, k.shape[1])
    runs = -(-block_size // tile)
    pieces = top_k * runs - (-window // tile)
    row_parts, row_norms, o = _wide(q, pieces, q.shape[2]), _wide(q, pieces), torch.empty_like(q)
    attend_step[pieces, groups, batch](
        q,
        k,
        v,
        lengths,
        ranks,
        row_parts,
        row_norms,
        scale_log2,
        block_size,
        window,
        *k_steps,
        *v_steps,
        runs,
        TOP=top_k,
        **heads,
        **choice,
        **dims,
        **exact,
        **options(row["attend_step"]),
    )
    merge_step[(q.shape[0] * q.shape[1],)](
        parts,
        norms,
        row_parts,
        row_norms,
        gates.contiguous(),
        o,
        top_k * runs,
        pieces,
        SPLITS=splits,
        **dims,
        **options(row["merge_step"]),
    )
    return o


@nsa_step.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_means: Tensor,
    v_means: Tensor,
    lengths: Tensor,
    gates: Tensor,
    block_size: int,
    top_k: int,
    window: int,
    scale: float,
) -> Tensor:
    return q.new_empty(q.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.block_size, ctx.top_k, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    """Of the form in PyTorch: one query a sequence is no case for a kernel."""
    *floats, lengths, gates = ctx.saved_tensors
    q, k, v, k_means, v_means, gates = leaves = [x.detach().requires_grad_() for x in (*floats, gates)]
    sizes = NsaSizes(block_size=ctx.block_size, top_k=ctx.top_k, window=ctx.window)
    with torch.enable_grad():
        cache = NsaCache(k=k, v=v, k_means=k_means, v_means=v_means, lengths=lengths)
        out = step_by_gathering(q, cache, gates, sizes, ctx.scale)
    *d_floats, d_gates = torch.autograd.grad(out, leaves, g, materialize_grads=True)
    return *d_floats, None, d_gates, *(None,) * 4


nsa_step.register_autograd(_backward, setup_context=_setup_context)


def _head_sizes(q: Tensor, k: Tensor) -> tuple[dict[str, int], int]:
    heads, groups = q.shape[1], k.shape[2]
    share = max(16, 1 << (heads // groups - 1).bit_length())
    return {"HEADS": heads, "KV_HEADS": groups, "SHARE": share}, groups


def _wide(q: Tensor, *sizes: int) -> Tensor:
    """float32 `[B, Hq, *sizes]`."""
    return torch.empty(*q.shape[:2], *sizes, dtype=torch.float32, device=q.device)
