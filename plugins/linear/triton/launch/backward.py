"""The backward kernels: states again, then the gradients of scores, states, triangular systems and inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..gradients import d_inputs, d_scores, d_solve
from ..states import d_states
from .forward import (
    Memory,
    Operands,
    Within,
    empty,
    levels,
    operands_of,
    or_q,
    parts_of,
    reads_of,
    rule_of,
    run_level_masks,
    run_scan,
    run_states,
    segment_sizes,
    shared,
)
from .plan import Inputs, Plan, launch


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Of each of the op's inputs, shaped as it is; None for one that there is not."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    taken: Tensor | None
    initial: Tensor | None


def backward(
    inputs: Inputs, plan: Plan, within: Within, initial: Tensor | None, d_o: Tensor, d_final: Tensor | None
) -> Gradients:
    """Gradients of all inputs, given those of the outputs `[N, HV, V]` and of the final state."""
    ready = operands_of(inputs, plan, within)
    memory = run_states(inputs, plan, ready, initial, want_final=False)
    d_writes, d_weights, d_gates = _d_scores(inputs, plan, within, memory, d_o)
    d_afters, d_initial = _d_states(
        inputs, plan, ready, memory, d_o, d_final, d_writes, want_initial=initial is not None
    )
    parts = _shares(inputs, plan)
    d_overlaps, d_v = None, d_writes
    if inputs.delta:
        d_overlaps, d_v = _d_solve(inputs, plan, within, memory, d_writes, parts)
    inner = _Inner(o=d_o, writes=d_writes, weights=d_weights, overlaps=d_overlaps, afters=d_afters)
    d_q, d_k, d_read, d_channel = _d_inputs(inputs, plan, memory, inner, parts)
    return Gradients(
        q=_summed(d_q, inputs.q),
        k=_summed(d_k, inputs.k),
        v=d_v,
        taken=_beta(inputs, parts) if d_read is None else d_read,
        log_decay=_log_decay(inputs, parts, d_gates, d_channel),
        initial=d_initial,
    )


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What is summed over blocks of key channels: d_beta and, by head, d_log_decay, float32 `[shares, N, HV]`, of
    which the triangular systems have the first.

    N is filled up to a multiple of 4: shares whose address is aligned at one N and not at another compile a kernel
    twice.
    """

    beta: Tensor | None
    gates: Tensor | None


def _shares(inputs: Inputs, plan: Plan) -> Shares:
    blocks = _key_blocks(inputs, plan)
    heads = inputs.v.shape[1]
    own = 1 if inputs.delta else 0
    rows = _rows(plan)
    by_beta = inputs.delta and not inputs.read
    beta = empty(inputs, blocks + 1, rows, heads, dtype=torch.float32) if by_beta else None
    by_head = inputs.gates == "head"
    gates = empty(inputs, blocks + own, rows, heads, dtype=torch.float32) if by_head else None
    return Shares(beta=beta, gates=gates)


def _rows(plan: Plan) -> int:
    return -(-plan.tokens // 4) * 4


def _key_blocks(inputs: Inputs, plan: Plan) -> int:
    return -(-inputs.q.shape[-1] // plan.config(_d_inputs_row(inputs)).tiles["K"])


def _d_inputs_row(inputs: Inputs) -> str:
    return "d_inputs_channel" if inputs.gates == "channel" else "d_inputs"


def _d_scores(
    inputs: Inputs, plan: Plan, within: Within, memory: Memory, d_o: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    heads = inputs.v.shape[1]
    d_writes = empty(inputs, *inputs.v.shape)
    d_weights = empty(inputs, plan.tokens, heads, plan.chunk)
    d_gates = empty(inputs, plan.tokens, heads, dtype=torch.float32) if inputs.gates == "head" else None
    config = plan.config("d_scores")
    arguments = shared(inputs, plan) | {
        "q": inputs.q,
        "k": inputs.k,
        "log_decay": or_q(inputs, inputs.log_decay),
        "scores": or_q(inputs, within.scores),
        "writes": memory.writes,
        "d_o": d_o,
        "d_writes": d_writes,
        "d_weights": d_weights,
        "d_gates": or_q(inputs, d_gates),
        "scale": inputs.scale,
        "BK": config.tiles["K"],
        "BV": config.tiles["V"],
    }
    launch(d_scores, (plan.all_chunks, heads), config, arguments)
    return d_writes, d_weights, d_gates


def _d_states(
    inputs: Inputs,
    plan: Plan,
    ready: Operands,
    memory: Memory,
    d_o: Tensor,
    d_final: Tensor | None,
    d_writes: Tensor,
    *,
    want_initial: bool,
) -> tuple[Tensor, Tensor | None]:
    d_afters = torch.empty_like(memory.befores)
    heads, key_dim, value_dim = memory.befores.shape[1:]
    d_initial = None
    if memory.factors is not None:
        lasts = empty(inputs, plan.pieces, heads, key_dim, value_dim, dtype=torch.float32)
        _d_pass(inputs, plan, ready, d_o, d_writes, d_initial=lasts)
        d_final, d_initial = run_scan(
            inputs, plan, d_final, lasts, memory.factors, want_final=want_initial, reverse=True
        )
    elif want_initial:
        d_initial = empty(inputs, plan.sequences, heads, key_dim, value_dim, dtype=torch.float32)
    own = d_initial if memory.factors is None else None
    _d_pass(inputs, plan, ready, d_o, d_writes, d_last=d_final, d_afters=d_afters, d_initial=own)
    return d_afters, d_initial


def _d_pass(
    inputs: Inputs,
    plan: Plan,
    ready: Operands,
    d_o: Tensor,
    d_writes: Tensor,
    *,
    d_last: Tensor | None = None,
    d_afters: Tensor | None = None,
    d_initial: Tensor | None = None,
) -> None:
    config = plan.config("d_states")
    heads, value_dim = inputs.v.shape[1:]
    arguments = (
        shared(inputs, plan)
        | segment_sizes(inputs, plan)
        | {
            "queries": ready.queries,
            "keys": ready.keys,
            "reads": or_q(inputs, ready.reads),
            "d_o": d_o,
            "log_decay": or_q(inputs, inputs.log_decay),
            "left": or_q(inputs, ready.left),
            "d_last": or_q(inputs, d_last),
            "d_afters": or_q(inputs, d_afters),
            "d_writes": d_writes,
            "d_initial": or_q(inputs, d_initial),
            "scale": inputs.scale,
            "BV": config.tiles["V"],
            "PARTS": parts_of(inputs, config),
            "DELTA": inputs.delta,
            "HAS_LAST": d_last is not None,
            "WANT_STATES": d_afters is not None,
            "WANT_INITIAL": d_initial is not None,
        }
    )
    launch(d_states, (plan.pieces, -(-value_dim // config.tiles["V"]), heads), config, arguments)


def _d_solve(
    inputs: Inputs, plan: Plan, within: Within, memory: Memory, d_writes: Tensor, parts: Shares
) -> tuple[Tensor, Tensor]:
    d_v = torch.empty_like(d_writes)
    d_overlaps = empty(inputs, plan.tokens, d_writes.shape[1], plan.chunk)
    config = plan.config("d_solve")
    arguments = shared(inputs, plan) | {
        "k": inputs.k,
        "v": inputs.v,
        "log_decay": or_q(inputs, inputs.log_decay),
        "taken": or_q(inputs, inputs.taken),
        "inverses": or_q(inputs, within.inverses),
        "writes": memory.writes,
        "d_writes": d_writes,
        "d_v": d_v,
        "d_overlaps": d_overlaps,
        "d_taken": _first(inputs, parts.beta),
        "d_gates": _first(inputs, parts.gates),
        "BK": config.tiles["K"],
        "BV": config.tiles["V"],
        **reads_of(inputs),
    }
    launch(d_solve, (plan.all_chunks, d_writes.shape[1]), config, arguments)
    return d_overlaps, d_v


@dataclass(frozen=True, kw_only=True)
class _Inner:
    """Gradients of what lies between inputs and outputs: outputs and writes `[N, HV, V]`, the weights and overlaps of
    pairs `[N, HV, C]`, None for no overlaps, and the states after each chunk."""

    o: Tensor
    writes: Tensor
    weights: Tensor
    overlaps: Tensor | None
    afters: Tensor


def _d_inputs(
    inputs: Inputs, plan: Plan, memory: Memory, inner: _Inner, parts: Shares
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Of q, of k, of a removal's vectors, and of the gates by channel."""
    heads, key_dim = inputs.v.shape[1], inputs.q.shape[-1]
    apart = None if heads == inputs.q.shape[1] else torch.float32
    d_q = empty(inputs, plan.tokens, heads, key_dim, dtype=apart)
    d_k = torch.empty_like(d_q)
    d_read = empty(inputs, plan.tokens, heads, key_dim) if inputs.read else None
    d_taken = d_read if parts.beta is None else parts.beta[1:]
    d_channel = None
    if inputs.gates == "channel":
        d_channel = empty(inputs, plan.tokens, heads, key_dim, dtype=torch.float32)
    own = 1 if inputs.delta else 0
    d_gates = parts.gates[own:] if parts.gates is not None else d_channel
    config = plan.config(_d_inputs_row(inputs))
    arguments = shared(inputs, plan) | {
        "q": inputs.q,
        "k": inputs.k,
        "log_decay": or_q(inputs, inputs.log_decay),
        "taken": or_q(inputs, inputs.taken),
        "masks": run_level_masks(inputs, plan) if inputs.gates == "channel" else inputs.q,
        "befores": memory.befores,
        "d_afters": inner.afters,
        "writes": memory.writes,
        "d_writes": inner.writes,
        "d_o": inner.o,
        "d_weights": inner.weights,
        "d_overlaps": or_q(inputs, inner.overlaps),
        "d_q": d_q,
        "d_k": d_k,
        "d_gates": or_q(inputs, d_gates),
        "d_taken": or_q(inputs, d_taken),
        "scale": inputs.scale,
        "N": _rows(plan),
        "BK": config.tiles["K"],
        "BV": config.tiles["V"],
        "LEVELS": levels(plan),
        **rule_of(inputs),
    }
    launch(d_inputs, (plan.all_chunks, _key_blocks(inputs, plan), heads), config, arguments)
    return d_q, d_k, d_read, d_channel


def _first(inputs: Inputs, shares: Tensor | None) -> Tensor:
    return inputs.q if shares is None else shares[0]


def _summed(by_value_head: Tensor, like: Tensor) -> Tensor:
    """Over the value heads that share a head of `like`, in a fixed order."""
    if by_value_head.shape == like.shape:
        return by_value_head
    return torch.unflatten(by_value_head, 1, (like.shape[1], -1)).sum(2).to(like.dtype)


def _beta(inputs: Inputs, parts: Shares) -> Tensor | None:
    if inputs.taken is None or parts.beta is None:
        return None
    return parts.beta.sum(0)[: len(inputs.taken)].to(inputs.taken.dtype)


def _log_decay(inputs: Inputs, parts: Shares, d_gates: Tensor | None, d_channel: Tensor | None) -> Tensor | None:
    if inputs.log_decay is None:
        return None
    found = d_channel
    if d_gates is not None and parts.gates is not None:
        found = parts.gates.sum(0)[: len(d_gates)] + d_gates
        found = found.sum(0) if inputs.decay == "constant" else found
    assert found is not None
    return found.to(inputs.log_decay.dtype)
