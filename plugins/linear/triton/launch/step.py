"""One decoded token of linear attention by its kernel, into a new state or into the old one's place."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import arch_of

from .. import table
from ..step import step_kernel
from ..table import STEP_TABLE


@torch.library.custom_op("archsearch::linear_attention_step", mutates_args=())
def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    scale: float,
    decay: str,
) -> tuple[Tensor, Tensor]:
    """Outputs `[B, HV, V]` and the float32 state `[B, HV, K, V]` after the token; see `linear_attention_step`."""
    state = state.contiguous()
    after = torch.empty(state.shape, dtype=state.dtype, device=state.device)
    return _launch(q, k, v, (state, after), log_decay, beta, scale, decay), after


@torch.library.custom_op("archsearch::linear_attention_step_", mutates_args=("state",))
def step_in_place(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    scale: float,
    decay: str,
) -> Tensor:
    """Outputs `[B, HV, V]`; `state`, float32 and dense, becomes the one after the token. Has no gradient."""
    return _launch(q, k, v, (state, state), log_decay, beta, scale, decay)


@step.register_fake
def _step_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    scale: float,
    decay: str,
) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), state.new_empty(state.shape)


@step_in_place.register_fake
def _step_in_place_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    scale: float,
    decay: str,
) -> Tensor:
    return v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.decay = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_o: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
    """The recurrence backwards, in float32: one token has no work that is worth a kernel of its own."""
    q, k, v, state, log_decay, beta = ctx.saved_tensors
    groups = v.shape[1] // q.shape[1]
    query, key = (x.float().repeat_interleave(groups, dim=1) for x in (q, k))
    value, d_o = v.float(), d_o.float()
    factor = None if log_decay is None else _factor(log_decay.float(), state, ctx.decay)
    memory = state if factor is None else state * factor
    missed = value if beta is None else value - _read(memory, key)
    written = missed if beta is None else missed * beta.float()[..., None]
    last = memory + key[..., None] * written[..., None, :]

    d_query = ctx.scale * (last @ d_o[..., None])[..., 0]
    d_last = d_after + ctx.scale * query[..., None] * d_o[..., None, :]
    d_written = _read(d_last, key)
    d_key = (d_last @ written[..., None])[..., 0]
    d_beta, d_value, d_memory = None, d_written, d_last
    if beta is not None:
        d_beta = (d_written * missed).sum(-1).to(beta.dtype)
        d_value = d_written * beta.float()[..., None]
        d_key = d_key - (memory @ d_value[..., None])[..., 0]
        d_memory = d_last - key[..., None] * d_value[..., None, :]
    d_decay = None
    if log_decay is not None:
        d_decay = _sum_to((d_memory * memory).sum(-1), ctx.decay).to(log_decay.dtype)
    d_state = d_memory if factor is None else d_memory * factor
    d_q, d_k = (x.unflatten(1, (-1, groups)).sum(2).to(q.dtype) for x in (d_query, d_key))
    return d_q, d_k, d_value.to(v.dtype), d_state.to(state.dtype), d_decay, d_beta, None, None


step.register_autograd(_backward, setup_context=_save)


def _factor(log_decay: Tensor, state: Tensor, decay: str) -> Tensor:
    """Decays that multiply a state `[B, HV, K, V]`."""
    if decay == "channel":
        return log_decay.exp()[..., None]
    return log_decay.exp()[..., None, None].expand(*state.shape[:2], 1, 1)


def _sum_to(d_cells: Tensor, decay: str) -> Tensor:
    """Gradients by key `[B, HV, K]` summed over what shares one decay."""
    if decay == "channel":
        return d_cells
    by_head = d_cells.sum(-1)
    return by_head if decay == "head" else by_head.sum(0)


def _read(state: Tensor, key: Tensor) -> Tensor:
    return (key[..., None, :] @ state)[..., 0, :]


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    states: tuple[Tensor, Tensor],
    log_decay: Tensor | None,
    beta: Tensor | None,
    scale: float,
    decay: str,
) -> Tensor:
    """Outputs; `states` are the one before the token and the one that is written after it, which may be one."""
    state, after = states
    batch, value_heads, key_dim, value_dim = state.shape
    o = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    if state.numel() == 0:
        return o.zero_()
    key = STEP_TABLE.key(arch_of(q.device), key_dim)
    row = STEP_TABLE.row(key)
    crowded = batch * value_heads * triton.cdiv(value_dim, row["wide"].tiles["V"]) >= table.STEP_CROWD
    config = row["wide" if crowded else "narrow"]
    q, k, v = _dense_rows(q), _dense_rows(k), _dense_rows(v)
    decays = q if log_decay is None else log_decay.contiguous() if decay == "constant" else _dense_rows(log_decay)
    rates = q if beta is None else _dense_rows(beta)
    step_kernel[(batch * value_heads * triton.cdiv(value_dim, config.tiles["V"]),)](
        q,
        k,
        v,
        decays,
        rates,
        state,
        after,
        o,
        scale,
        q.shape[1],
        value_heads,
        key_dim,
        value_dim,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        decays.stride(0),
        rates.stride(0),
        DELTA=beta is not None,
        DECAY=decay,
        ALIGNED=value_dim % 4 == 0,
        BLOCK_K=key[1],
        BLOCK_V=config.tiles["V"],
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return o


def _dense_rows(x: Tensor) -> Tensor:
    """`x` with each sequence's numbers dense, at whatever distance from the next one's."""
    return x if x[:1].is_contiguous() else x.contiguous()
