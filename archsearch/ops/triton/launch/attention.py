"""Launches of the kernels for ranges and chosen blocks: memory, grids and arguments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.kernels import Config
from archsearch.ops.triton import chosen as chosen_kernels
from archsearch.ops.triton.block_rows import inner_products
from archsearch.ops.triton.blocks import mean_rows
from archsearch.ops.triton.gradients.ranges import range_grad_keys, range_grad_query
from archsearch.ops.triton.layout import Blocks, Pairs
from archsearch.ops.triton.operands import Operands, rows_of
from archsearch.ops.triton.ranges import range_forward


@dataclass(frozen=True, kw_only=True)
class Range:
    """Keys `low` to `high` - 1 of each query, int32 `[B * T]`, both rising."""

    low: Tensor
    high: Tensor

    def queries(self, keys: int, size: int) -> tuple[Tensor, Tensor]:
        """First query and the one after the last, of those that may see a key of each tile of `size` keys."""
        first = torch.arange(0, keys, size, device=self.low.device, dtype=torch.int32)
        begin = torch.searchsorted(self.high, first, right=True)
        end = torch.searchsorted(self.low, first + size)
        return begin.to(torch.int32), end.to(torch.int32)


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What backward kernels read of a forward pass: the log-sum-exps `norms` and gradients `g` of its outputs, and
    ``inner`` = g . o, float32 `[B * T, Hq]`."""

    norms: Tensor
    g: Tensor
    inner: Tensor


def options(config: Config) -> dict[str, int]:
    """Tiles, warps and stages as a launch takes them."""
    return {**config.tiles, "num_warps": config.num_warps, "num_stages": config.num_stages}


def block_means(x: Tensor, blocks: Blocks, width: int, config: Config) -> Tensor:
    """Means `[n, H, D]` of the complete blocks of x `[B, S, H, D]`, in its dtype; zeros for others."""
    x, distance = rows_of(x)
    heads, dim = x.shape[2:]
    means = x.new_empty(blocks.count, heads, dim)
    mean_rows[blocks.count, heads](
        x, blocks.starts, blocks.stops, means, blocks.size, distance, HEADS=heads, D=dim, WIDTH=width, **options(config)
    )
    return means


def gradient(o: Tensor, g: Tensor, norms: Tensor, width: int, config: Config) -> Gradient:
    """For an output `o` `[B, T, Hq, D]` and its gradient `g`."""
    g = g.contiguous()
    rows = norms.numel()
    inner = torch.empty_like(norms)
    grid = (-(-rows // config.tiles["M"]),)
    inner_products[grid](o, g, inner, rows, D=o.shape[3], WIDTH=width, **options(config))
    return Gradient(norms=norms, g=g, inner=inner)


def attend_range(
    x: Operands, seen: Range, config: Config, *, parts: Tensor | None = None, part_norms: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output `[B, T, Hq, D]` and log-sum-exps `[B * T, Hq]` over a range, and over `parts` `[B * T, Hq, slots, D]` of
    log-sum-exps `part_norms`, -inf for none."""
    batch, count, heads, _ = x.q.shape
    o = torch.empty_like(x.q, memory_format=torch.contiguous_format)
    norms = x.q.new_empty(batch * count, heads, dtype=torch.float32)
    range_forward[-(-count // config.tiles["M"]), heads, batch](
        x.q,
        x.k,
        x.v,
        seen.low,
        seen.high,
        o if parts is None else parts,
        norms if part_norms is None else part_norms,
        o,
        norms,
        x.scale_log2,
        count,
        *x.distances,
        HEADS=heads,
        GROUP=x.group,
        SLOTS=0 if parts is None else parts.shape[2],
        **x.constants,
        **options(config),
    )
    return o, norms


def grad_range_query(
    x: Operands,
    seen: Range,
    grad: Gradient,
    dq: Tensor,
    config: Config,
    *,
    parts: Tensor | None = None,
    add: bool = False,
) -> None:
    """Writes, or adds to, dq `[B, T, Hq, D]`, the sum of `parts` `[B * T, Hq, slots, D]` with it."""
    batch, count, heads, _ = x.q.shape
    range_grad_query[-(-count // config.tiles["M"]), heads, batch](
        x.q,
        x.k,
        x.v,
        seen.low,
        seen.high,
        grad.norms,
        grad.g,
        grad.inner,
        dq if parts is None else parts,
        dq,
        x.scale_log2,
        x.scale,
        count,
        *x.distances,
        HEADS=heads,
        GROUP=x.group,
        SLOTS=0 if parts is None else parts.shape[2],
        ADD=add,
        **x.constants,
        **options(config),
    )


def grad_range_keys(
    x: Operands, seen: Range, grad: Gradient, dk: Tensor, dv: Tensor, config: Config, *, add: bool = False
) -> None:
    """Writes, or adds to, dk and dv `[B, S, Hkv, D]`; by query head where they are `[B, S, Hq, D]`."""
    heads = x.heads
    keys, out = dk.shape[0] * dk.shape[1], dk.shape[2]
    begin, end = seen.queries(keys, config.tiles["N"])
    range_grad_keys[len(begin), out](
        x.q,
        x.k,
        x.v,
        seen.low,
        seen.high,
        begin,
        end,
        grad.norms,
        grad.g,
        grad.inner,
        dk,
        dv,
        x.scale_log2,
        x.scale,
        keys,
        *x.distances,
        HEADS=heads,
        GROUP=x.group,
        EACH=heads // out,
        ADD=add,
        **x.constants,
        **options(config),
    )


def drop_unfilled(gradients: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, ...]:
    """Zeros in the rows of `[B, S, H, D]` after the first `lengths` `[B]`, which no query saw: what they hold may be
    NaN, and a product with it is no zero."""
    if lengths is None:
        return gradients
    device = gradients[0].device
    rows = torch.arange(gradients[0].shape[1], device=device) >= lengths.to(device, non_blocking=True)[:, None]
    return tuple(x.masked_fill_(rows[..., None, None], 0) for x in gradients)


def attend_pairs(x: Operands, pairs: Pairs, blocks: Blocks, config: Config) -> tuple[Tensor, Tensor]:
    """Attention of each pair of a query head and a block: parts `[B * T, Hq, slots, D]` in the dtype of q, and their
    log-sum-exps `[B * T, Hq, slots]`, -inf where the query made no such choice."""
    (batch, count, heads, dim), slots = x.q.shape, pairs.slots
    parts = x.q.new_empty(batch * count, heads, slots, dim)
    part_norms = x.q.new_full((batch * count, heads, slots), -torch.inf, dtype=torch.float32)
    lane, first = pairs.tiles(config.tiles["M"])
    chosen_kernels.chosen_forward[(len(lane),)](
        x.q,
        x.k,
        x.v,
        pairs.order,
        pairs.bounds,
        lane,
        first,
        blocks.starts,
        blocks.stops,
        parts,
        part_norms,
        x.scale_log2,
        pairs.lanes,
        blocks.count,
        *x.distances,
        HEADS=heads,
        SLOTS=slots,
        **x.constants,
        **options(config),
    )
    return parts, part_norms


def grad_pairs_query(x: Operands, pairs: Pairs, blocks: Blocks, grad: Gradient, config: Config) -> Tensor:
    """The gradient of the query of each pair, `[B * T, Hq, slots, D]`, zeros where there is no such choice."""
    batch, count, heads, dim = x.q.shape
    parts = x.q.new_zeros(batch * count, heads, pairs.slots, dim)
    lane, first = pairs.tiles(config.tiles["M"])
    chosen_kernels.chosen_grad_query[(len(lane),)](
        x.q,
        x.k,
        x.v,
        pairs.order,
        pairs.bounds,
        lane,
        first,
        blocks.starts,
        blocks.stops,
        grad.norms,
        grad.g,
        grad.inner,
        parts,
        x.scale_log2,
        x.scale,
        pairs.lanes,
        blocks.count,
        *x.distances,
        HEADS=heads,
        SLOTS=pairs.slots,
        **x.constants,
        **options(config),
    )
    return parts


def grad_pairs_keys(
    x: Operands, pairs: Pairs, blocks: Blocks, grad: Gradient, dk: Tensor, dv: Tensor, config: Config
) -> None:
    """Adds to dk and dv `[B, S, Hkv, D]` float32 what the pairs give the keys of their blocks. A turn takes the query
    heads of one choice at least."""
    share = 1 << (x.heads // pairs.choosers - 1).bit_length()
    chosen_kernels.chosen_grad_keys[pairs.lanes, -(-blocks.size // config.tiles["N"])](
        x.q,
        x.k,
        x.v,
        pairs.order,
        pairs.bounds,
        blocks.starts,
        blocks.stops,
        grad.norms,
        grad.g,
        grad.inner,
        dk,
        dv,
        x.scale_log2,
        x.scale,
        blocks.count,
        *x.distances,
        HEADS=x.heads,
        KV_HEADS=x.key_heads,
        CHOOSERS=pairs.choosers,
        SHARE=share,
        SLOTS=pairs.slots,
        **x.constants,
        **{**options(config), "M": max(config.tiles["M"], share)},
    )
