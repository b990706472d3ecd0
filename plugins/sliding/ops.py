"""Sliding-window causal attention with sinks: the pure op."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from archsearch.errors import OptionsError
from archsearch.ops.band import band_attention, window_mask
from archsearch.ops.cached import SINK_IN_PYTORCH, cached_attention
from archsearch.ops.impl import choose_attention, choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import explicit_attention, scale_of

from .triton.table import TABLE


def window_attention(
    laid: LaidOut,
    *,
    window: int,
    sinks: int = 0,
    sink_logits: Tensor | None = None,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Softmax attention of token t over tokens t-window+1..t and 0..sinks-1 of its sequence, `[B, T, Hq, D]`.

    Windows after Longformer (arXiv 2004.05150, section 3.1), sinks after StreamingLLM (arXiv 2309.17453, section 3).
    ``sink_logits`` `[Hq]`: a logit a head that joins the sum of the softmax, with no value (gpt-oss, arXiv 2508.10925);
    kernels do not take it. ``scale`` is D^-0.5 unless given. ``impl`` "chunkwise" and "triton" cost
    O(T (window + sinks)); "triton" leaves ``laid.cu_seqlens``, which must rise from 0 to T, and ``laid.lengths``, which
    must lie between T and S, on the device and unchecked. Raises `ShapeError`, `OptionsError`,
    `KernelUnavailableError`.
    """
    laid.check(TABLE.op)
    if window < 1 or sinks < 0:
        raise OptionsError(f"window_attention: window = {window}, sinks = {sinks}: at least 1 and 0")
    if sink_logits is None:
        chosen = choose_attention(TABLE, laid.q, laid.v, impl, why="blocks of the band, in PyTorch")
    else:
        chosen = choose_impl(TABLE.op, impl, why=SINK_IN_PYTORCH)
    if chosen == "triton" and laid.q.numel():
        from .triton.launch import run

        return run(laid, window=window, sinks=sinks, scale=scale_of(laid.q, scale))
    form = _reference if chosen == "reference" else band_attention
    return laid.each_apart(TABLE.op, partial(form, window=window, sinks=sinks, scale=scale, sink_logits=sink_logits))


def window_attention_step(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    sink_logits: Tensor | None = None,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """`window_attention` of one new token a sequence over its ring of window + sinks rows, `[B, Hq, D]`.

    q `[B, Hq, D]`; caches `[B, window + sinks, Hkv, D]`, the new token's row among them; lengths `[B]`: tokens that
    each sequence has, the new one included: so many rows are filled, or all, and the token sees every one. Otherwise
    as `archsearch.ops.cached.cached_attention`.
    """
    return cached_attention(q, k_cache, v_cache, lengths, table=TABLE, scale=scale, impl=impl, sink=sink_logits)


def _reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    sinks: int,
    scale: float | None,
    sink_logits: Tensor | None,
) -> Tensor:
    return explicit_attention(q, k, v, _mask(q, k, window, sinks), scale, sink_logits)


def _mask(q: Tensor, k: Tensor, window: int, sinks: int) -> Tensor:
    index = torch.arange(k.shape[1], device=q.device)
    return window_mask(index[k.shape[1] - q.shape[1] :], index, window=window, sinks=sinks)
