"""Attention over listed blocks on Triton kernels: the differentiable op, for sequences and for decoded tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.kernels import Config, arch_of
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.gradients.listed import listed_grad_keys
from archsearch.ops.triton.launch.attention import Gradient, gradient, options
from archsearch.ops.triton.layout import sort_pairs
from archsearch.ops.triton.listed import listed_forward, listed_grad_query, merge_listed
from archsearch.ops.triton.operands import alike, narrowed, precision_of, rows_of, rows_of_cache
from archsearch.ops.triton.step import shares_of_rows

from .table import SMALL, TABLE

FEW_TOKENS = 8
"""Queries a sequence up to which the list of each is read in parts side by side."""

MOST_HEADS = 64
"""Query heads of a tile at most."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, listed: tuple[Tensor, Tensor], *, block_size: int, scale: float
) -> Tensor:
    """softmax(scale q k^T) v over the keys of listed blocks up to each query's own, `[B, T, Hq, Dv]`.

    q `[B, T, Hq, D]` at `positions` `[B, T]` of their sequences; k `[B, S, Hkv, D]`, v `[B, S, Hkv, Dv]`. ``listed``
    are blocks `[B * T, Hc, slots]` int32, none twice and -1 for none, for 1, Hkv or Hq choosers, and how many slots
    `[B * T, Hc]` there are to read. Nothing waits for the device.
    """
    laid = LaidOut(q, k, v)
    if not _within_rows_of(k, v):
        laid = alike(laid)
    out: Tensor = listed_attention(laid.q, laid.k, laid.v, positions, *listed, block_size, scale)[0]
    return narrowed(out, LaidOut(q, k, v))


def _within_rows_of(k: Tensor, v: Tensor) -> bool:
    """Whether values are the first channels of rows that lie as far apart as keys do, as those of latents are."""
    dim = k.shape[3]
    apart = v.stride(0) % dim or v.stride(1) % dim or v.stride(3) != 1
    plain = k.dtype == v.dtype and not torch.is_autocast_enabled(k.device.type)
    return plain and v.shape[2] == 1 and v.shape[3] < dim and not apart


@torch.library.custom_op("archsearch::listed_attention", mutates_args=())
def listed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    chosen: Tensor,
    counts: Tensor,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Outputs `[B, T, Hq, Dv]` of `attend`, and log-sum-exps `[B * T, Hq]` to base 2."""
    batch, count, heads, _ = q.shape
    o = q.new_empty(batch, count, heads, v.shape[3])
    norms = q.new_empty(batch * count, heads, dtype=torch.float32)
    if not o.numel():
        return o, norms
    call = _prepare(q, k, v, positions, chosen, block_size, scale)
    config, entries, splits = call.row["forward"], call.slots * block_size, 1
    if count <= FEW_TOKENS:
        programs = batch * count * call.tiles
        splits = shares_of_rows(programs, max(1, entries), config.tiles["N"], q.device)[2]
    share = -(-entries // splits)
    wide = (batch * count, heads, splits)
    parts = (o, norms) if splits == 1 else (norms.new_empty(*wide, v.shape[3]), norms.new_empty(wide))
    listed_forward[batch * count, call.tiles, splits](
        *call.tensors,
        call.positions,
        chosen,
        counts,
        *parts,
        call.scale / math.log(2),
        count,
        call.slots,
        block_size,
        share,
        *call.distances,
        DV=v.shape[3],
        **call.sizes,
        **options(config),
    )
    if splits > 1:
        merge = options(call.row["merge"])
        sizes = {"D": v.shape[3], "WIDTH": call.sizes["WIDTH"]}
        merge_listed[(batch * count * heads,)](*parts, o, norms, splits, **sizes, **merge)
    return o, norms


@listed_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    chosen: Tensor,
    counts: Tensor,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    batch, count, heads, _ = q.shape
    o = q.new_empty(batch, count, heads, v.shape[3])
    return o, q.new_empty(batch * count, heads, dtype=torch.float32)


@torch.library.custom_op("archsearch::listed_attention_backward", mutates_args=())
def listed_attention_backward(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    norms: Tensor,
    positions: Tensor,
    chosen: Tensor,
    counts: Tensor,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, all of one head dim, from that of the output."""
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if not q.numel():
        return dq, dk.zero_(), dv.zero_()
    call = _prepare(q, k, v, positions, chosen, block_size, scale)
    grad = gradient(o, g, norms, call.sizes["WIDTH"], call.row["inner"])
    listed_grad_query[len(chosen), call.tiles](
        *call.tensors,
        call.positions,
        chosen,
        counts,
        grad.norms,
        grad.g,
        grad.inner,
        dq,
        scale / math.log(2),
        scale,
        q.shape[1],
        call.slots,
        block_size,
        *call.distances,
        **call.sizes,
        **options(call.row["grad_query"]),
    )
    _grad_keys(call, chosen, block_size, grad, (dk, dv))
    return dq, dk, dv


@listed_attention_backward.register_fake
def _(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.block_size, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, g: Tensor, *_rest: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, positions, chosen, counts, o, norms = ctx.saved_tensors
    dim, narrow = q.shape[3], v.shape[3]
    g, o, v = (F.pad(x, (0, dim - narrow)) if narrow < dim else x for x in (g, o, v))
    dq, dk, dv = listed_attention_backward(g, q, k, v, o, norms, positions, chosen, counts, ctx.block_size, ctx.scale)
    return dq, dk, dv[..., :narrow], *(None,) * 5


listed_attention.register_autograd(_backward, setup_context=_setup_context)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call: q, k and v as they are read, the ``distances`` of tokens and sequences in rows, the table's row, and
    what every kernel is compiled for."""

    tensors: tuple[Tensor, Tensor, Tensor]
    distances: tuple[int, ...]
    positions: Tensor
    slots: int
    scale: float
    row: Mapping[str, Config]
    sizes: dict[str, Any]

    @property
    def tiles(self) -> int:
        """Leads and the tiles of their query heads."""
        leads, share = self.sizes["LEADS"], self.sizes["SHARE"]
        return int(leads * -(-self.sizes["HEADS"] // leads // share))


def _prepare(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor, chosen: Tensor, block_size: int, scale: float
) -> _Call:
    key = TABLE.key(arch_of(q.device), q.shape[3])
    (q, distance), (k, *of_keys) = rows_of(q), rows_of_cache(k)
    if v.shape[3] == k.shape[3]:
        v, *of_values = rows_of_cache(v)
    else:
        of_values = [v.stride(axis) // k.shape[3] for axis in (0, 1)]
    leads = max(k.shape[2], chosen.shape[1])
    sizes = {
        "HEADS": q.shape[2],
        "KV_HEADS": k.shape[2],
        "CHOOSERS": chosen.shape[1],
        "LEADS": leads,
        "SHARE": min(MOST_HEADS, max(SMALL, 1 << (q.shape[2] // leads - 1).bit_length())),
        "D": q.shape[3],
        "WIDTH": key[1],
        "PRECISION": precision_of(q),
    }
    return _Call(
        tensors=(q, k, v),
        distances=(distance, *of_keys, *of_values),
        positions=positions.contiguous(),
        slots=chosen.shape[2],
        scale=scale,
        row=TABLE.row(key, q.dtype),
        sizes=sizes,
    )


def _grad_keys(call: _Call, chosen: Tensor, block_size: int, grad: Gradient, into: tuple[Tensor, Tensor]) -> None:
    """Writes dk and dv `[B, S, Hkv, D]`: choices are sorted by block, so that one program has all of a block's."""
    (batch, keys, key_heads, _), choosers = into[0].shape, chosen.shape[1]
    config = call.row["grad_few" if block_size <= SMALL else "grad_keys"]
    per_sequence, lane_heads = -(-keys // block_size), min(choosers, key_heads)
    first = torch.arange(batch, dtype=torch.int32, device=chosen.device) * per_sequence
    of_all = torch.where(chosen < 0, -1, chosen + first.repeat_interleave(len(chosen) // batch)[:, None, None])
    pairs = sort_pairs(of_all, lane_heads, batch * per_sequence)
    share = 1 << (call.sizes["HEADS"] // call.sizes["LEADS"] - 1).bit_length()
    listed_grad_keys[pairs.lanes, -(-block_size // config.tiles["N"]), key_heads // lane_heads](
        *call.tensors,
        call.positions,
        pairs.order,
        pairs.bounds,
        grad.norms,
        grad.g,
        grad.inner,
        *into,
        call.scale / math.log(2),
        call.scale,
        keys,
        batch * per_sequence,
        per_sequence,
        block_size,
        call.slots,
        *call.distances,
        **{**call.sizes, "SHARE": min(config.tiles["M"], share)},
        **options(config),
    )
