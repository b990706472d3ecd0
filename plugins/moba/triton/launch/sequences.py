"""Mixture of block attention on Triton kernels: the differentiable op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import Config, arch_of
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.launch.attention import (
    Range,
    attend_pairs,
    attend_range,
    block_means,
    drop_unfilled,
    grad_pairs_keys,
    grad_pairs_query,
    grad_range_keys,
    grad_range_query,
    gradient,
    options,
)
from archsearch.ops.triton.layout import Blocks, Pairs, lay_blocks, most_blocks, sort_pairs
from archsearch.ops.triton.operands import Operands, alike, narrowed, operands

from ..choice import choose_past
from ..table import TABLE


def run(laid: LaidOut, *, block_size: int, top_k: int, scale: float) -> Tensor:
    """`ops.moba_attention` by kernels, `[B, T, Hq, Dv]`; nothing waits for the device, so bounds go unchecked."""
    out: Tensor = moba_forward(*alike(laid).flat, block_size, top_k, scale)[0]
    return narrowed(out, laid)


@torch.library.custom_op("archsearch::moba_forward", mutates_args=())
def moba_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    block_size: int,
    top_k: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output `[B, T, Hq, D]`; log-sum-exps `[B * T, Hq]`, to base 2; the order and bounds of `layout.Pairs`."""
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths)
    x, row, blocks = _prepare(laid, block_size, scale)
    slots = top_k - 1
    if not slots:
        empty = blocks.starts.new_empty(0)
        return *attend_range(x, _own_range(blocks), row["own_forward"]), empty, empty.clone()
    pairs = sort_pairs(_choose(x, blocks, slots, row), x.key_heads, blocks.count)
    parts, part_norms = attend_pairs(x, pairs, blocks, row["past_forward"])
    o, norms = attend_range(x, _own_range(blocks), row["own_forward"], parts=parts, part_norms=part_norms)
    return o, norms, pairs.order, pairs.bounds


@torch.library.custom_op("archsearch::moba_backward", mutates_args=())
def moba_backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    norms: Tensor,
    order: Tensor,
    bounds: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    block_size: int,
    top_k: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths)
    x, row, blocks = _prepare(laid, block_size, scale)
    grad, own, slots = gradient(o, g, norms, x.width, row["inner"]), _own_range(blocks), top_k - 1
    dq, dk, dv = torch.empty(q.shape, dtype=q.dtype, device=q.device), *(_wide_like(y) for y in (k, v))
    grad_range_keys(x, own, grad, dk, dv, row["own_grad_keys"])
    parts = None
    if slots:
        pairs = Pairs(order=order, bounds=bounds, choosers=x.heads, slots=slots)
        grad_pairs_keys(x, pairs, blocks, grad, dk, dv, row["past_grad_keys"])
        parts = grad_pairs_query(x, pairs, blocks, grad, row["past_grad_query"])
    grad_range_query(x, own, grad, dq, row["own_grad_query"], parts=parts)
    dk, dv = drop_unfilled((dk, dv), lengths)
    return dq, dk.to(k.dtype), dv.to(v.dtype)


@moba_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    block_size: int,
    top_k: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, count, heads, _ = q.shape
    blocks = most_blocks(LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths), block_size)
    pairs, lanes = (batch * count * heads * (top_k - 1), k.shape[2] * blocks + 1) if top_k > 1 else (0, 0)
    return (
        q.new_empty(q.shape),
        q.new_empty(batch * count, heads, dtype=torch.float32),
        q.new_empty(pairs, dtype=torch.int32),
        q.new_empty(lanes, dtype=torch.int32),
    )


@moba_backward.register_fake
def _(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, cu_seqlens, lengths, *ctx.sizes = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens, lengths)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, g: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if g is None:
        return (None,) * 8
    return *moba_backward(g, *ctx.saved_tensors, *ctx.sizes), None, None, None, None, None


moba_forward.register_autograd(_backward, setup_context=_setup_context)


def _prepare(laid: LaidOut, block_size: int, scale: float) -> tuple[Operands, dict[str, Config], Blocks]:
    key = TABLE.key(arch_of(laid.q.device), laid.q.shape[3])
    x = operands(laid.q, laid.k, laid.v, width=key[1], scale=scale)
    return x, dict(TABLE.row(key, laid.q.dtype)), lay_blocks(laid, block_size)


def _own_range(blocks: Blocks) -> Range:
    return Range(low=blocks.starts[blocks.own], high=blocks.at + 1)


def _wide_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


def _choose(x: Operands, blocks: Blocks, slots: int, row: dict[str, Config]) -> Tensor:
    """Past blocks `[B * T, Hq, slots]` int32 that each query head chooses, -1 for none."""
    batch, count, heads, _ = x.q.shape
    means, config = block_means(x.k, blocks, x.width, row["means"]), row["choose"]
    chosen = blocks.own.new_empty(batch * count, heads, slots)
    choose_past[-(-count // config.tiles["M"]), heads, batch](
        x.q,
        means,
        blocks.first,
        blocks.own,
        chosen,
        count,
        x.q_heads,
        HEADS=heads,
        KV_HEADS=x.key_heads,
        SLOTS=slots,
        SLOTS_UP=1 << (slots - 1).bit_length(),
        **x.constants,
        **options(config),
    )
    return chosen
