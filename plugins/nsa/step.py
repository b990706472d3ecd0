"""Native sparse attention of one token a sequence over its cache: the op of the decode step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.ops.block_cache import BLOCKS_IN_PYTORCH, block_rows, gather_rows, needed_rows, rows_attention
from archsearch.ops.impl import choose_attention
from archsearch.ops.softmax import scale_of

from .ops import choose_blocks, gated_sum, mean_weights, weighted
from .sizes import NsaSizes
from .triton.table import TABLE


@dataclass(frozen=True, kw_only=True)
class NsaCache:
    """k, v `[B, S, Hkv, D]` of which each sequence has filled the first ``lengths`` `[B]` rows, 1 at least; and the
    means of both `[B, n, Hkv, D]` of complete blocks; of any floating dtype."""

    k: Tensor
    v: Tensor
    k_means: Tensor
    v_means: Tensor
    lengths: Tensor

    @property
    def flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The tensors side by side, as custom ops of torch take them."""
        return self.k, self.v, self.k_means, self.v_means, self.lengths


def nsa_attention_step(
    q: Tensor, cache: NsaCache, *, gates: Tensor, sizes: NsaSizes, scale: float | None = None, impl: str = "auto"
) -> Tensor:
    """`nsa_attention` of one new token a sequence over its cache, `[B, Hq, D]`.

    q `[B, Hq, D]`, gates `[B, Hq, 3]`; the new token's row is in the cache, and in its means if it completes a block.
    Reads the means of complete blocks, the chosen ones' rows and the window's; the Triton form waits for nothing on the
    device, the others read ``cache.lengths``. Raises `OptionsError`, `KernelUnavailableError`.
    """
    sizes.check_plain()
    scale = scale_of(q, scale)
    if choose_attention(TABLE, q, cache.v, impl, why=BLOCKS_IN_PYTORCH) == "triton":
        from .triton.launch.step import nsa_step

        out: Tensor = nsa_step(q, *cache.flat, gates, *sizes.flat, scale)
        return out
    return step_by_gathering(q, cache, gates, sizes, scale)


def step_by_gathering(q: Tensor, cache: NsaCache, gates: Tensor, sizes: NsaSizes, scale: float) -> Tensor:
    """`nsa_attention_step` in PyTorch."""
    size, positions, complete = sizes.block_size, cache.lengths[:, None] - 1, cache.lengths // sizes.block_size
    held = torch.arange(int(complete.max()), device=q.device) < complete[:, None]
    key_means, value_means = (
        torch.where(held[..., None, None], means[:, : held.shape[1]], 0).to(q.dtype)
        for means in (cache.k_means, cache.v_means)
    )
    weights = mean_weights(q[:, None], key_means, positions, size, scale)
    chosen = choose_blocks(weights, positions // size, cache.k.shape[2], sizes.top_k)[:, :, 0]
    selected, local = _read_rows(q, cache, chosen, sizes, scale)
    summed = gated_sum(gates[:, None], weighted(weights, value_means), selected[:, None], local[:, None])
    return summed[:, 0]


def _read_rows(q: Tensor, cache: NsaCache, chosen: Tensor, sizes: NsaSizes, scale: float) -> tuple[Tensor, Tensor]:
    """Selection and window `[B, Hq, D]` of the last token, over one gathering of the rows of both: those of the window,
    and after them those of chosen blocks."""
    last = cache.lengths - 1
    rows, seen = needed_rows(*block_rows(chosen, last, sizes.block_size))
    steps = torch.arange(min(sizes.window, int(last.max()) + 1), device=q.device)
    near = (last[:, None, None] - steps).expand(*rows.shape[:2], -1)
    gathered = torch.cat((near.clamp(min=0), rows), dim=-1)
    keys, values = gather_rows(cache.k, cache.v, gathered, q.dtype)
    count = near.shape[-1]
    selected = rows_attention(q, keys[:, :, count:], values[:, :, count:], seen, scale)
    return selected, rows_attention(q, keys[:, :, :count], values[:, :, :count], near >= 0, scale)
