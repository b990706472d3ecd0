"""Native sparse attention on Triton kernels: the differentiable op of its three branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import Config, arch_of
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.launch.attention import (
    Gradient,
    Range,
    attend_range,
    block_means,
    drop_unfilled,
    grad_pairs_keys,
    grad_range_keys,
    grad_range_query,
    gradient,
    options,
)
from archsearch.ops.triton.layout import Blocks, lay_blocks, sort_pairs
from archsearch.ops.triton.operands import Operands, alike, narrowed, operands

from ...sizes import NsaSizes
from ..choice import choose_important
from ..selection import selection_forward, selection_grad_query
from ..table import TABLE


def branches(laid: LaidOut, sizes: NsaSizes, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compression, selection and window of `ops.nsa_attention` by kernels, each `[B, T, Hq, Dv]`; nothing waits for
    the device, so bounds go unchecked."""
    made = nsa_forward(*alike(laid).flat, *sizes.flat, scale)
    compressed, selected, local = (narrowed(o, laid) for o in made[:3])
    return compressed, selected, local


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call: the operands, those over the means, the blocks, and the table's row."""

    x: Operands
    means: Operands
    blocks: Blocks
    window: int
    row: Mapping[str, Config]

    @property
    def complete(self) -> Range:
        """The means that each query sees."""
        blocks = self.blocks
        return Range(low=blocks.first, high=blocks.first + (blocks.at - blocks.begin + 1) // blocks.size)

    @property
    def own(self) -> Range:
        """The keys that each query sees of its own block."""
        return Range(low=self.blocks.starts[self.blocks.own], high=self.blocks.at + 1)

    @property
    def near(self) -> Range:
        """The keys of the window."""
        at = self.blocks.at
        return Range(low=torch.maximum(self.blocks.begin, at + 1 - self.window), high=at + 1)


@torch.library.custom_op("archsearch::nsa_forward", mutates_args=())
def nsa_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    block_size: int,
    top_k: int,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The branches `[B, T, Hq, D]`, the log-sum-exps of each `[B * T, Hq]` to base 2, the past blocks that are chosen,
    `[B * T, Hkv, top_k - 1]` int32, -1 for none."""
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths)
    call = _prepare(laid, block_size, window, scale)
    compressed, norms = attend_range(call.means, call.complete, call.row["means_forward"])
    chosen = _choose(call, norms, top_k - 1)
    selected, selected_norms = _select(call, chosen)
    local, local_norms = attend_range(call.x, call.near, call.row["window_forward"])
    return compressed, selected, local, norms, selected_norms, local_norms, chosen


@torch.library.custom_op("archsearch::nsa_backward", mutates_args=())
def nsa_backward(
    g: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: list[Tensor],
    norms: list[Tensor],
    chosen: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    block_size: int,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from those of the branches."""
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens, lengths=lengths)
    call = _prepare(laid, block_size, window, scale)
    x, row = call.x, call.row
    compressed, selected, local = (gradient(*one, x.width, row["inner"]) for one in zip(o, g, norms, strict=True))
    dq, dk, dv = (torch.empty(y.shape, dtype=torch.float32, device=y.device) for y in (q, k, v))
    grad_range_query(x, call.near, local, dq, row["window_grad_query"])
    grad_range_keys(x, call.near, local, dk, dv, row["window_grad_keys"])
    grad_range_query(call.means, call.complete, compressed, dq, row["means_grad_query"], add=True)
    _grad_means(call, compressed, dk, dv)
    _grad_selection(call, chosen, selected, dq)
    grad_range_keys(x, call.own, selected, dk, dv, row["own_grad_keys"], add=True)
    if chosen.shape[2]:
        pairs = sort_pairs(chosen, x.key_heads, call.blocks.count)
        grad_pairs_keys(x, pairs, call.blocks, selected, dk, dv, row["past_grad_keys"])
    dk, dv = drop_unfilled((dk, dv), lengths)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


@nsa_forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
    block_size: int,
    top_k: int,
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, count, heads, _ = q.shape
    o = [q.new_empty(q.shape) for _ in range(3)]
    norms = [q.new_empty(batch * count, heads, dtype=torch.float32) for _ in range(3)]
    chosen = q.new_empty(batch * count, k.shape[2], top_k - 1, dtype=torch.int32)
    return o[0], o[1], o[2], norms[0], norms[1], norms[2], chosen


@nsa_backward.register_fake
def _(g: list[Tensor], q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, cu_seqlens, lengths, ctx.block_size, _, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, cu_seqlens, lengths)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, *made, chosen, cu_seqlens, lengths = ctx.saved_tensors
    dq, dk, dv = nsa_backward(
        list(grads[:3]),
        q,
        k,
        v,
        made[:3],
        made[3:],
        chosen,
        cu_seqlens,
        lengths,
        ctx.block_size,
        ctx.window,
        ctx.scale,
    )
    return dq, dk, dv, None, None, None, None, None, None


nsa_forward.register_autograd(_backward, setup_context=_setup_context)


def _prepare(laid: LaidOut, block_size: int, window: int, scale: float) -> _Call:
    key = TABLE.key(arch_of(laid.q.device), laid.q.shape[3])
    row, width, blocks = TABLE.row(key, laid.q.dtype), key[1], lay_blocks(laid, block_size)
    means = [block_means(x, blocks, width, row["means"])[None] for x in (laid.k, laid.v)]
    return _Call(
        x=operands(laid.q, laid.k, laid.v, width=width, scale=scale),
        means=operands(laid.q, *means, width=width, scale=scale),
        blocks=blocks,
        window=min(window, laid.k.shape[1]),
        row=row,
    )


def _choose(call: _Call, norms: Tensor, slots: int) -> Tensor:
    x, blocks, config = call.x, call.blocks, call.row["choose"]
    batch, count, heads, _ = x.q.shape
    chosen = blocks.own.new_empty(batch * count, x.key_heads, slots)
    if slots:
        choose_important[-(-count // config.tiles["M"]), x.key_heads, batch](
            x.q,
            call.means.k,
            norms,
            blocks.first,
            blocks.own,
            chosen,
            x.scale_log2,
            count,
            x.q_heads,
            HEADS=heads,
            KV_HEADS=x.key_heads,
            SLOTS=slots,
            SLOTS_UP=1 << max(0, slots - 2).bit_length(),
            **x.constants,
            **options(config),
        )
    return chosen


def _sizes(x: Operands, chosen: Tensor) -> dict[str, int | str]:
    share = max(16, 1 << (x.group - 1).bit_length())
    return {
        "HEADS": x.heads,
        "KV_HEADS": x.key_heads,
        "SLOTS": chosen.shape[2],
        "SHARE": share,
        **x.constants,
    }


def _select(call: _Call, chosen: Tensor) -> tuple[Tensor, Tensor]:
    x, blocks = call.x, call.blocks
    o = torch.empty_like(x.q, memory_format=torch.contiguous_format)
    norms = o.new_empty(len(chosen), x.heads, dtype=torch.float32)
    selection_forward[len(chosen), x.key_heads](
        x.q,
        x.k,
        x.v,
        chosen,
        blocks.starts,
        blocks.stops,
        blocks.own,
        blocks.at,
        o,
        norms,
        x.scale_log2,
        blocks.size,
        *x.distances,
        **_sizes(x, chosen),
        **options(call.row["selection_forward"]),
    )
    return o, norms


def _grad_selection(call: _Call, chosen: Tensor, grad: Gradient, dq: Tensor) -> None:
    """Adds to dq `[B, T, Hq, D]` float32."""
    x, blocks = call.x, call.blocks
    selection_grad_query[len(chosen), x.key_heads](
        x.q,
        x.k,
        x.v,
        chosen,
        blocks.starts,
        blocks.stops,
        blocks.own,
        blocks.at,
        grad.norms,
        grad.g,
        grad.inner,
        dq,
        x.scale_log2,
        x.scale,
        blocks.size,
        *x.distances,
        **_sizes(x, chosen),
        **options(call.row["selection_grad_query"]),
    )


def _grad_means(call: _Call, grad: Gradient, dk: Tensor, dv: Tensor) -> None:
    """Adds to dk and dv `[B, S, Hkv, D]` float32 the share of each key and value in the mean of its block."""
    x, size = call.means, call.blocks.size
    d_keys, d_values = (
        x.q.new_empty(1, call.blocks.count, x.heads, x.q.shape[3], dtype=torch.float32) for _ in range(2)
    )
    grad_range_keys(x, call.complete, grad, d_keys, d_values, call.row["means_grad_keys"])
    keys = torch.arange(dk.shape[0] * dk.shape[1], device=dk.device, dtype=torch.int32)
    block = torch.searchsorted(call.blocks.stops, keys, right=True).clamp_(max=call.blocks.count - 1)
    for of_rows, of_heads in ((dk, d_keys), (dv, d_values)):
        of_means = of_heads[0].unflatten(1, (x.key_heads, -1)).sum(2)
        of_rows.add_(of_means[block].view_as(of_rows), alpha=1 / size)
