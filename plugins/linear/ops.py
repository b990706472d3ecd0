"""Linear attention: the pure op, its one-token step, and the choice of the implementation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from archsearch.errors import OptionsError
from archsearch.kernels import Table
from archsearch.ops.host import without_autocast
from archsearch.ops.impl import Served, choose_impl

from .apart import in_two_steps
from .checks import OP, check_sequence, check_step
from .chunk.form import chunkwise
from .decays import Decay
from .reference import advance, recurrent
from .tokens import Tokens, canonical, pad_packed, unpad
from .triton.table import REMOVAL_STEP_TABLE, REMOVAL_TABLE, STEP_TABLE, TABLE


def linear_attention(
    tokens: Tokens,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    chunk_size: int = 64,
    impl: str = "auto",
    want_state: bool = True,
) -> tuple[Tensor, Tensor]:
    """Linear attention with decay, by the Hebbian or the delta rule: outputs `[B, T, HV, V]` and the last state.

    For each token and value head, with a = exp(log_decay): S <- a S + k v^T where there is no beta (Katharopoulos et
    al. 2020, arXiv 2006.16236, equations 18-20; with decay Yang et al. 2023, arXiv 2312.06635, equation 3), else
    S <- a S, then S <- S + beta k (v - S^T k)^T (Yang et al. 2024, arXiv 2412.06464, equation 10); with a `Removal` S
    loses what it says, and gains k v^T. Then o = scale S^T q.

    scale is K^-0.5 unless given; initial_state `[B, HV, K, V]`, zero unless given. With cu_seqlens `[N + 1]`, B = 1,
    sequences lie end to end and states are `[N, HV, K, V]`. Keys of the delta rule should have length 1. Computes in
    float32 (float64 where q is), which is the dtype of the state; outputs have v's dtype.

    ``impl`` is "auto", "reference" (token by token), "chunkwise" (chunks of `chunk_size`, rounded down to a power of
    two, 128 at most) or "triton" (kernels, whose table picks the chunk; not for float64, K and V at most 256, products
    in q's dtype). Without ``want_state`` the second result is an empty tensor. Raises `ShapeError`,
    `OptionsError` and `KernelUnavailableError`.
    """
    decay, q, v = check_sequence(tokens, initial_state, cu_seqlens), tokens.q, tokens.v
    if chunk_size < 1:
        raise OptionsError(f"{OP}: chunk_size = {chunk_size}: must be at least 1")
    rows = REMOVAL_TABLE if tokens.removal else TABLE
    chosen = choose_impl(
        rows.op,
        impl,
        why="the chunkwise form in PyTorch",
        served=None if torch.float64 in (q.dtype, v.dtype) else _served(rows, q, v, chunk_size),
    )
    given = _Given(tokens=tokens, decay=decay, initial_state=initial_state, cu_seqlens=cu_seqlens)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if chosen == "triton":
        return _by_kernel(given, scale=scale, chunk_size=chunk_size, want_state=want_state)
    chunks = 0 if chosen == "reference" else chunk_size
    return _in_pytorch(given, scale=scale, chunk_size=chunks, want_state=want_state)


def _served(rows: Table, q: Tensor, v: Tensor, chunk_size: int) -> Served:
    return Served(
        table=rows,
        device=q.device,
        dtype=torch.promote_types(q.dtype, v.dtype),
        head_dim=max(q.shape[-1], v.shape[-1]),
        chunk=chunk_size,
    )


@dataclass(frozen=True, kw_only=True)
class _Given:
    """The tensors of a call of `linear_attention`, as they were checked, and the kind of the decay."""

    tokens: Tokens
    decay: Decay
    initial_state: Tensor | None
    cu_seqlens: Tensor | None


def _in_pytorch(given: _Given, *, scale: float, chunk_size: int, want_state: bool) -> tuple[Tensor, Tensor]:
    """Token by token where `chunk_size` is 0."""
    with without_autocast(given.tokens.q.device.type):
        tokens = canonical(given.tokens, given.decay)
        layout = None
        if given.cu_seqlens is not None:
            tokens, layout = pad_packed(tokens, given.cu_seqlens)
        state = None if given.initial_state is None else given.initial_state.to(tokens.q.dtype)
        if chunk_size:
            o, last = chunkwise(tokens, state, scale, chunk_size, want_state)
        else:
            o, last = recurrent(tokens, state, scale)
        if layout is not None:
            o = unpad(o, layout)
    return o.to(given.tokens.v.dtype), last if want_state else last.new_zeros(0)


def _by_kernel(given: _Given, *, scale: float, chunk_size: int, want_state: bool) -> tuple[Tensor, Tensor]:
    from .triton.launch.sequences import sequence

    tokens, decay, bounds, removal = given.tokens, given.decay, given.cu_seqlens, given.tokens.removal
    apart = removal is not None and removal.along is not None
    with torch.autocast(tokens.q.device.type, enabled=False):
        if apart:
            tokens, bounds = in_two_steps(tokens), None if bounds is None else 2 * bounds
            decay = "head" if decay == "constant" else decay
        q, k, v, log_decay, taken = tokens.flat
        dtype = torch.promote_types(q.dtype, v.dtype)
        log_decay, taken = (None if x is None else x.float() for x in (log_decay, taken))
        if tokens.removal is not None:
            taken = tokens.removal.read.to(dtype)
        early = removal is not None and removal.early
        qkv = (x.to(dtype) for x in (q, k, v))
        state = None if given.initial_state is None else given.initial_state.float()
        o, last, _, _ = sequence(*qkv, log_decay, taken, state, bounds, scale, chunk_size, want_state, decay, early)
        o = o[:, 1::2] if apart else o
    return o.to(v.dtype), last


def linear_attention_step(
    tokens: Tokens, state: Tensor, *, scale: float | None = None, impl: str = "auto", in_place: bool = False
) -> tuple[Tensor, Tensor]:
    """One token of `linear_attention`, by the recurrence: outputs `[B, HV, V]` and the state after the token.

    `tokens` of one a sequence; state `[B, HV, K, V]`; scale K^-0.5 unless given. Dtypes as there.

    ``impl`` is "auto", "reference" or "chunkwise" (both are the recurrence in PyTorch), or "triton", which computes
    in float32. With ``in_place``, `state` may be overwritten: go on with the one that is returned. The kernel then
    writes into it where it is dense float32 and no gradient is needed. Raises `ShapeError` and
    `KernelUnavailableError`.
    """
    q = tokens.q
    rows = REMOVAL_STEP_TABLE if tokens.removal else STEP_TABLE
    dtype = torch.promote_types(q.dtype, tokens.v.dtype)
    served = Served(table=rows, device=q.device, dtype=dtype, head_dim=q.shape[-1])
    chosen = choose_impl(
        rows.op,
        impl,
        why="the recurrence in PyTorch",
        served=None if dtype == torch.float64 else served,
    )
    decay = check_step(tokens, state)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if chosen == "triton":
        return _step_by_kernel(tokens, decay, state, scale, in_place)
    return _step_in_pytorch(tokens, decay, state, scale)


def _step_in_pytorch(tokens: Tokens, decay: Decay, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    q, k, v, log_decay, beta = tokens.flat
    with without_autocast(q.device.type):
        if log_decay is not None and decay != "constant":
            log_decay = log_decay[:, None]
        beta = None if beta is None else beta[:, None]
        removal = None if tokens.removal is None else tokens.removal.map(lambda x: x[:, None])
        sequence = Tokens(q[:, None], k[:, None], v[:, None], log_decay=log_decay, beta=beta, removal=removal)
        one = canonical(sequence, decay)
        o, state = advance(one.map(lambda x: x[:, 0]), state.to(one.q.dtype), scale)
    return o.to(v.dtype), state


def _step_by_kernel(tokens: Tokens, decay: Decay, state: Tensor, scale: float, in_place: bool) -> tuple[Tensor, Tensor]:
    from .triton.launch.step import step, step_in_place

    q, k, v, log_decay, taken = tokens.flat
    dtype, along, early = torch.promote_types(q.dtype, v.dtype), None, False
    log_decay, taken = (None if x is None else x.float() for x in (log_decay, taken))
    if tokens.removal is not None:
        taken, along, early = tokens.removal.read.to(dtype), tokens.removal.along, tokens.removal.early
        along = None if along is None else along.to(dtype)
    given = (*(x.to(dtype) for x in (q, k, v)), state, log_decay, taken, along)
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in given if x is not None)
    if in_place and not trained and state.dtype == torch.float32 and state.is_contiguous():
        return step_in_place(*given, scale, decay, early).to(v.dtype), state
    o, after = step(*given[:3], state.float(), *given[4:], scale, decay, early)
    return o.to(v.dtype), after
