"""Linear attention over whole sequences by its kernels: the custom ops, their shapes and their gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ...decays import Decay
from .backward import backward
from .forward import Within
from .fused import attend
from .plan import Inputs, make_plan

Results = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("archsearch::linear_attention_sequence", mutates_args=())
def sequence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk_size: int,
    want_state: bool,
    decay: str,
    early: bool,
) -> Results:
    """Outputs `[B, T, HV, V]`, the final state (empty unless wanted), and for the backward the scores and inverses of
    each chunk, empty where the variant has none; see `linear_attention`, whose q, k and v must have one dtype.
    ``taken`` and ``early`` are those of `Inputs`."""
    inputs, initial = _flat(q, k, v, log_decay, taken, scale, decay, early), _dense(initial)
    plan = make_plan(inputs, q.shape[0], cu_seqlens, chunk_size)
    o, last, within = attend(inputs, plan, initial, want_final=want_state)
    final, scores, inverses = (q.new_empty(0) if x is None else x for x in (last, within.scores, within.inverses))
    return o.view(v.shape), final, scores, inverses


@sequence.register_fake
def _sequence_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
    chunk_size: int,
    want_state: bool,
    decay: str,
    early: bool,
) -> Results:
    batch, length, heads, value_dim = v.shape
    plan_chunk = _chunk(q, v, taken, chunk_size)
    rows = cu_seqlens.shape[0] - 1 if cu_seqlens is not None else batch
    within = (batch * length, heads, plan_chunk)
    final = q.new_empty((rows, heads, q.shape[-1], value_dim), dtype=torch.float32) if want_state else q.new_empty(0)
    scores = q.new_empty(within if decay == "channel" else (0,))
    inverses = q.new_empty(within if taken is not None else (0,))
    return v.new_empty(v.shape), final, scores, inverses


@torch.library.custom_op("archsearch::linear_attention_sequence_backward", mutates_args=())
def sequence_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scores: Tensor,
    inverses: Tensor,
    d_o: Tensor,
    d_final: Tensor | None,
    scale: float,
    chunk_size: int,
    decay: str,
    early: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, log_decay, what is taken and the initial state, empty for those that there are not."""
    inputs, initial = _flat(q, k, v, log_decay, taken, scale, decay, early), _dense(initial)
    plan = make_plan(inputs, q.shape[0], cu_seqlens, chunk_size)
    within = Within(scores=scores if scores.numel() else None, inverses=inverses if inverses.numel() else None)
    d_o = d_o.to(v.dtype).reshape(inputs.v.shape).contiguous()
    found = backward(inputs, plan, within, initial, d_o, _dense(d_final))
    pairs = ((found.q, q), (found.k, k), (found.v, v), (found.log_decay, log_decay), (found.taken, taken))
    shaped = [q.new_empty(0) if x is None or like is None else x.view(like.shape) for x, like in pairs]
    d_initial = q.new_empty(0) if found.initial is None else found.initial
    return shaped[0], shaped[1], shaped[2], shaped[3], shaped[4], d_initial


@sequence_backward.register_fake
def _sequence_backward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    initial: Tensor | None,
    cu_seqlens: Tensor | None,
    scores: Tensor,
    inverses: Tensor,
    d_o: Tensor,
    d_final: Tensor | None,
    scale: float,
    chunk_size: int,
    decay: str,
    early: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    d_log_decay, d_taken = (q.new_empty(0) if x is None else x.new_empty(x.shape) for x in (log_decay, taken))
    d_initial = q.new_empty(0) if initial is None else initial.new_empty(initial.shape, dtype=torch.float32)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), d_log_decay, d_taken, d_initial


def _save(ctx: Any, inputs: tuple[Any, ...], output: Results) -> None:
    *tensors, ctx.scale, ctx.chunk_size, ctx.want_state, ctx.decay, ctx.early = inputs
    ctx.save_for_backward(*tensors, output[2], output[3])


def _backward(ctx: Any, d_o: Tensor, d_final: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, taken, initial, cu_seqlens, scores, inverses = ctx.saved_tensors
    found = sequence_backward(
        q,
        k,
        v,
        log_decay,
        taken,
        initial,
        cu_seqlens,
        scores,
        inverses,
        d_o,
        d_final if ctx.want_state else None,
        ctx.scale,
        ctx.chunk_size,
        ctx.decay,
        ctx.early,
    )
    kept = [None if like is None else x for x, like in zip(found, (q, k, v, log_decay, taken, initial), strict=True)]
    return (*kept, None, None, None, None, None, None)


sequence.register_autograd(_backward, setup_context=_save)


def _flat(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    taken: Tensor | None,
    scale: float,
    decay: str,
    early: bool,
) -> Inputs:
    """The inputs over one axis of tokens."""
    if log_decay is not None:
        log_decay = log_decay.contiguous() if decay == "constant" else _tokens(log_decay)
    return Inputs(
        q=_tokens(q),
        k=_tokens(k),
        v=_tokens(v),
        log_decay=log_decay,
        taken=None if taken is None else _tokens(taken),
        decay=cast(Decay, decay),
        scale=scale,
        early=early,
    )


def _tokens(x: Tensor) -> Tensor:
    """`[B, T, ...]` as `[B T, ...]`, dense and at an aligned address: a single token of a slice is dense where it is,
    which may be none, and kernels would be compiled for it alone."""
    x = x.flatten(0, 1).contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


def _dense(state: Tensor | None) -> Tensor | None:
    return None if state is None else state.float().contiguous()


def _chunk(q: Tensor, v: Tensor, taken: Tensor | None, chunk_size: int) -> int:
    from archsearch.kernels import arch_of

    from ..table import REMOVAL_TABLE, TABLE

    table = REMOVAL_TABLE if taken is not None and taken.dim() == 4 else TABLE
    return table.key(arch_of(q.device), max(q.shape[-1], v.shape[-1]), chunk_size)[2]
