"""Full attention on Triton kernels, where `scaled_dot_product_attention` would wait for the device: the differentiable
op of packed sequences, and of queries after lengths that differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import Config, arch_of
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.launch.attention import (
    Range,
    attend_range,
    drop_unfilled,
    grad_range_keys,
    grad_range_query,
    gradient,
)
from archsearch.ops.triton.layout import lay_sequences
from archsearch.ops.triton.operands import Operands, alike, narrowed, operands

from .table import TABLE


def run(laid: LaidOut, *, scale: float) -> Tensor:
    """`ops.full_attention` by kernels, `[B, T, Hq, Dv]`; nothing waits for the device, so bounds go unchecked."""
    out: Tensor = full_forward(*alike(laid).flat, scale)[0]
    return narrowed(out, laid)


@torch.library.custom_op("archsearch::full_forward", mutates_args=())
def full_forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, lengths: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output `[B, T, Hq, D]` and log-sum-exps `[B * T, Hq]`, to base 2."""
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths)
    x, row, seen = _prepare(laid, scale)
    return attend_range(x, seen, row["forward"])


@torch.library.custom_op("archsearch::full_backward", mutates_args=())
def full_backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    norms: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths)
    x, row, seen = _prepare(laid, scale)
    grad = gradient(o, g, norms, x.width, row["inner"])
    dq, dk, dv = (torch.empty(y.shape, dtype=y.dtype, device=y.device) for y in (q, k, v))
    grad_range_query(x, seen, grad, dq, row["grad_query"])
    grad_range_keys(x, seen, grad, dk, dv, row["grad_keys"])
    dk, dv = drop_unfilled((dk, dv), lengths)
    return dq, dk, dv


@full_forward.register_fake
def _(q: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    batch, count, heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty(batch * count, heads, dtype=torch.float32)


@full_backward.register_fake
def _(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, lengths, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens, lengths)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, g: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if g is None:
        return (None,) * 6
    return *full_backward(g, *ctx.saved_tensors, ctx.scale), None, None, None


full_forward.register_autograd(_backward, setup_context=_setup_context)


def _prepare(laid: LaidOut, scale: float) -> tuple[Operands, dict[str, Config], Range]:
    key = TABLE.key(arch_of(laid.q.device), laid.q.shape[3])
    places = lay_sequences(laid)
    seen = Range(low=places.begins[places.sequence].to(torch.int32), high=(places.at + 1).to(torch.int32))
    return operands(laid.q, laid.k, laid.v, width=key[1], scale=scale), dict(TABLE.row(key, laid.q.dtype)), seen
