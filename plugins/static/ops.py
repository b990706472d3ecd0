"""Attention under a static pattern: the pure op."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from archsearch.ops.block_cache import block_rows, rows_attention
from archsearch.ops.block_sparse import attend_chosen, visible_keys
from archsearch.ops.impl import choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import explicit_attention, scale_of

OP = "static_attention"
WHY = "a mask over few keys, tiles of the pattern's blocks over many"

Pattern = Callable[[Tensor], Tensor]
"""Blocks `[*shape, Hkv, K]` that queries of blocks `[*shape]` see."""


def static_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    pattern: Pattern,
    *,
    block_size: int,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """softmax(scale q k^T) v over the pattern's blocks up to each query's own position, `[B, T, Hq, Dv]`.

    q `[B, T, Hq, D]` at `positions` `[B, T]`; k, v `[B, S, Hkv, D or Dv]` hold the tokens from position 0 on; ``scale``
    is D^-0.5 unless given. BigBird (arXiv 2007.14062, section 2), Longformer (arXiv 2004.05150, section 3.1). ``impl``
    "reference" masks all pairs. Raises `OptionsError`, `KernelUnavailableError`.
    """
    form = choose_impl(OP, impl, why=WHY)
    if not q.numel():
        return LaidOut(q, k, v).no_outputs()
    chosen = pattern(positions // block_size).transpose(1, 2)
    if form != "reference":
        return attend_chosen(q, k, v, chosen, positions, block_size=block_size, scale=scale_of(q, scale))
    visible = visible_keys(chosen, positions, k.shape[1], block_size).unbind(1)
    queries = q.unflatten(2, (k.shape[2], -1)).unbind(2)
    heads = [
        explicit_attention(queries[head], k[:, :, head : head + 1], v[:, :, head : head + 1], seen, scale)
        for head, seen in enumerate(visible)
    ]
    return torch.cat(heads, dim=2)


def static_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    last: Tensor,
    pattern: Pattern,
    places: Callable[[Tensor], Tensor],
    block_size: int,
    widened: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """`static_attention` of one new token a sequence, `[B, Hq, D]`: it reads no row but those that it sees.

    q `[B, Hq, D]` of the token at `last` `[B]`; `places` gives the rows of the caches `[B, R, Hkv, D]` in which tokens
    lie. ``widened`` makes of keys `[B, Hkv, n, D]` and which tokens they are `[B, Hkv, n]` those that q `[B, Hq, 2 D]`
    meets.
    """
    rows, seen = block_rows(pattern(last // block_size), last, block_size)
    sequence = torch.arange(len(q), device=q.device)[:, None, None]
    head = torch.arange(k.shape[2], device=q.device)[:, None]
    keys, values = (x[sequence, places(rows), head].to(q.dtype) for x in (k, v))
    scale = scale_of(keys, None)
    return rows_attention(q, keys if widened is None else widened(keys, rows), values, seen, scale)
