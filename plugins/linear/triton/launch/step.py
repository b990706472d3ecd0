"""One decoded token of linear attention by its kernel, into a new state or into the old one's place."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from archsearch.kernels import arch_of

from .. import table
from ..step import step_kernel
from ..table import REMOVAL_STEP_TABLE, STEP_TABLE


@torch.library.custom_op("archsearch::linear_attention_step", mutates_args=())
def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    along: Tensor | None,
    scale: float,
    decay: str,
    early: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs `[B, HV, V]` and the float32 state `[B, HV, K, V]` after the token; see `linear_attention_step`. What the
    state loses is read by ``taken``, None for nothing, beta `[B, HV]` for beta k, or vectors `[B, HV, K]`, ``early`` of
    the state before the decay, and lies ``along`` `[B, HV, K]`, None for k."""
    state = state.contiguous()
    after = torch.empty(state.shape, dtype=state.dtype, device=state.device)
    return _launch(_Token(q, k, v, log_decay, taken, along), (state, after), scale, decay, early), after


@torch.library.custom_op("archsearch::linear_attention_step_", mutates_args=("state",))
def step_in_place(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    along: Tensor | None,
    scale: float,
    decay: str,
    early: bool,
) -> Tensor:
    """Outputs `[B, HV, V]`; `state`, float32 and dense, becomes the one after the token. Has no gradient."""
    return _launch(_Token(q, k, v, log_decay, taken, along), (state, state), scale, decay, early)


@step.register_fake
def _step_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    along: Tensor | None,
    scale: float,
    decay: str,
    early: bool,
) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), state.new_empty(state.shape)


@step_in_place.register_fake
def _step_in_place_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    along: Tensor | None,
    scale: float,
    decay: str,
    early: bool,
) -> Tensor:
    return v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.decay, ctx.early = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_o: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
    """The recurrence backwards, in float32: one token has no work that is worth a kernel of its own."""
    q, k, v, state, log_decay, taken, along = ctx.saved_tensors
    groups = v.shape[1] // q.shape[1]
    query, key = (x.float().repeat_interleave(groups, dim=1) for x in (q, k))
    value, d_o = v.float(), d_o.float()
    factor = None if log_decay is None else _factor(log_decay.float(), state, ctx.decay)
    memory = state if factor is None else state * factor
    rate = taken.float()[..., None] if taken is not None and taken.dim() == 2 else None
    read = None if taken is None else taken.float() if rate is None else rate * key
    met = state if ctx.early else memory
    recalled = None if read is None else _read(met, read)
    value = value if rate is None else rate * value
    written = value if recalled is None or along is not None else value - recalled
    last = memory + key[..., None] * written[..., None, :]
    if recalled is not None and along is not None:
        last = last - along.float()[..., None] * recalled[..., None, :]

    d_query = ctx.scale * (last @ d_o[..., None])[..., 0]
    d_last = d_after + ctx.scale * query[..., None] * d_o[..., None, :]
    d_value = _read(d_last, key)
    d_key = (d_last @ written[..., None])[..., 0]
    d_taken, d_along, d_memory, d_met = None, None, d_last, None
    if recalled is not None and read is not None:
        d_recalled = -(d_value if along is None else _read(d_last, along.float()))
        d_along = None if along is None else -(d_last @ recalled[..., None])[..., 0].to(along.dtype)
        d_read = (met @ d_recalled[..., None])[..., 0]
        d_met = read[..., None] * d_recalled[..., None, :]
        if rate is None:
            d_taken = d_read.to(taken.dtype)
        else:
            d_taken = ((d_read * key).sum(-1) + (d_value * v.float()).sum(-1)).to(taken.dtype)
            d_value, d_key = d_value * rate, d_key + d_read * rate
        d_memory = d_memory if ctx.early else d_memory + d_met
    d_decay = None
    if log_decay is not None:
        d_decay = _sum_to((d_memory * memory).sum(-1), ctx.decay).to(log_decay.dtype)
    d_state = d_memory if factor is None else d_memory * factor
    d_state = d_state + d_met if ctx.early and d_met is not None else d_state
    d_q, d_k = (x.unflatten(1, (-1, groups)).sum(2).to(q.dtype) for x in (d_query, d_key))
    return d_q, d_k, d_value.to(v.dtype), d_state.to(state.dtype), d_decay, d_taken, d_along, None, None, None


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


class _Token(NamedTuple):
    """The tensors of one token a sequence, but its state."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    taken: Tensor | None
    along: Tensor | None


def _launch(token: _Token, states: tuple[Tensor, Tensor], scale: float, decay: str, early: bool) -> Tensor:
    """Outputs; `states` are the one before the token and the one that is written after it, which may be one."""
    state, after = states
    batch, value_heads, key_dim, value_dim = state.shape
    o = torch.empty(token.v.shape, dtype=token.v.dtype, device=token.v.device)
    if state.numel() == 0:
        return o.zero_()
    reads = token.taken is not None and token.taken.dim() == 3
    rows = REMOVAL_STEP_TABLE if reads else STEP_TABLE
    key = rows.key(arch_of(token.q.device), key_dim)
    row = rows.row(key)
    crowded = batch * value_heads * triton.cdiv(value_dim, row["wide"].tiles["V"]) >= table.STEP_CROWD
    config = row["wide" if crowded else "narrow"]
    q, k, v = _dense_rows(token.q), _dense_rows(token.k), _dense_rows(token.v)
    gates = token.log_decay
    decays = q if gates is None else gates.contiguous() if decay == "constant" else _dense_rows(gates)
    taken = q if token.taken is None else _dense_rows(token.taken)
    along = q if token.along is None else _dense_rows(token.along)
    step_kernel[(batch * value_heads * triton.cdiv(value_dim, config.tiles["V"]),)](
        q,
        k,
        v,
        decays,
        taken,
        along,
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
        taken.stride(0),
        along.stride(0),
        DELTA=token.taken is not None,
        READ=reads,
        EARLY=reads and early and gates is not None,
        APART=token.along is not None,
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
