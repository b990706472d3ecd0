"""Linear attention: the pure op, its one-token step, and the choice of the implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.errors import OptionsError
from archsearch.model.impl import choose_impl

from .checks import OP, check_sequence, check_step
from .chunkwise import chunkwise
from .reference import advance, recurrent
from .tokens import canonical, pad_packed, unpad


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    chunk_size: int = 64,
    impl: str = "auto",
    want_state: bool = True,
) -> tuple[Tensor, Tensor]:
    """Linear attention with decay, by the Hebbian or the delta rule: outputs `[B, T, HV, V]` and the last state.

    For each token and value head, with a = exp(log_decay): S <- a S + k v^T where `beta` is None (Katharopoulos et
    al. 2020, arXiv 2006.16236, equations 18-20; with decay Yang et al. 2023, arXiv 2312.06635, equation 3), else
    S <- a S, then S <- S + beta k (v - S^T k)^T (Yang et al. 2024, arXiv 2412.06464, equation 10). Then
    o = scale S^T q.

    q, k `[B, T, H, K]`; v `[B, T, HV, V]`, HV a multiple of H, query head h serving the HV / H value heads from
    h HV / H on; log_decay (natural logarithm, at most 0) `[HV]`, `[B, T, HV]` or `[B, T, HV, K]`; beta
    `[B, T, HV]`; scale K^-0.5 unless given; initial_state `[B, HV, K, V]`, zero unless given. With cu_seqlens
    `[N + 1]`, B = 1, sequences lie end to end and states are `[N, HV, K, V]`. Keys of the delta rule should have
    length 1. Computes in float32 (float64 where q is), which is the dtype of the state; outputs have v's dtype.

    ``impl`` is "auto", "reference" (token by token) or "chunkwise" (chunks of `chunk_size`, rounded down to a power
    of two, 128 at most). Without ``want_state`` the second result is an empty tensor. Raises `ShapeError`,
    `OptionsError` and `KernelUnavailableError`.
    """
    chosen = choose_impl(OP, impl, why="the chunkwise form in PyTorch")
    check_sequence(q, k, v, log_decay, beta, initial_state, cu_seqlens)
    if chunk_size < 1:
        raise OptionsError(f"{OP}: chunk_size = {chunk_size}: must be at least 1")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(q.device.type, enabled=False):
        tokens, layout = canonical(q, k, v, log_decay, beta), None
        if cu_seqlens is not None:
            tokens, layout = pad_packed(tokens, cu_seqlens)
        state = None if initial_state is None else initial_state.to(tokens.q.dtype)
        if chosen == "reference":
            o, last = recurrent(tokens, state, scale)
        else:
            o, last = chunkwise(tokens, state, scale, chunk_size, want_state)
        if layout is not None:
            o = unpad(o, layout)
    return o.to(v.dtype), last if want_state else last.new_zeros(0)


def linear_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One token of `linear_attention`, by the recurrence: outputs `[B, HV, V]` and the state after the token.

    q, k `[B, H, K]`; v `[B, HV, V]`; state `[B, HV, K, V]`; log_decay `[HV]`, `[B, HV]` or `[B, HV, K]`; beta
    `[B, HV]`; scale K^-0.5 unless given. Dtypes as there. Raises `ShapeError`.
    """
    check_step(q, k, v, state, log_decay, beta)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    with torch.autocast(q.device.type, enabled=False):
        if log_decay is not None and log_decay.dim() > 1:
            log_decay = log_decay[:, None]
        gate = None if beta is None else beta[:, None]
        token = canonical(q[:, None], k[:, None], v[:, None], log_decay, gate).map(lambda x: x[:, 0])
        o, state = advance(token.q, token.k, token.v, state.to(token.q.dtype), token.log_decay, token.beta, scale)
    return o.to(v.dtype), state
