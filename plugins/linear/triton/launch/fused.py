"""The forward whose states stay on chip: scores and inverses, the pass over chunks, and its cut along time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import table
from ..fused import fused, head_scores
from .forward import (
    Operands,
    Within,
    empty,
    inverses_of,
    operands_of,
    or_q,
    rule_of,
    run_outputs,
    run_scan,
    run_states,
    segment_sizes,
    shared,
    within_chunks,
)
from .plan import Inputs, Plan, launch


class Attended(NamedTuple):
    """Outputs `[N, HV, V]`, the final state, None unless wanted, and what the backward reads of the chunks."""

    o: Tensor
    final: Tensor | None
    within: Within


def attend(inputs: Inputs, plan: Plan, initial: Tensor | None, *, want_final: bool) -> Attended:
    """The forward: in one pass over chunks where the row has it, else by way of all states in memory."""
    if wants_fused(inputs, plan):
        return attend_fused(inputs, plan, initial, want_final=want_final)
    within = within_chunks(inputs, plan)
    ready = operands_of(inputs, plan, within)
    memory = run_states(inputs, plan, ready, initial, want_final=want_final)
    return Attended(run_outputs(inputs, plan, within, ready, memory), memory.final, within)


def wants_fused(inputs: Inputs, plan: Plan) -> bool:
    """Whether the row has the pass, for that rule and those gates."""
    return plan.has_fused and (inputs.rule, inputs.gates) in table.FUSED


def attend_fused(inputs: Inputs, plan: Plan, initial: Tensor | None, *, want_final: bool) -> Attended:
    """In one pass over chunks; where sequences are cut, first over each segment by itself, then over the segments."""
    heads, value_dim = inputs.v.shape[1:]
    if inputs.gates == "channel":
        within = within_chunks(inputs, plan)
        call = _Call(inputs, plan, operands_of(inputs, plan, within), within)
        kept = within
    else:
        within = _within(inputs, plan)
        ready = Operands(queries=inputs.q, keys=inputs.k, known=inputs.v, reads=None, left=None)
        call, kept = _Call(inputs, plan, ready, within), Within(scores=None, inverses=within.inverses)
    final = None
    if plan.segments > 1:
        lasts, factors = _segment_ends(call)
        initial, final = run_scan(inputs, plan, initial, lasts, factors, want_final=want_final, reverse=False)
    elif want_final:
        final = empty(inputs, plan.sequences, heads, inputs.q.shape[-1], value_dim, dtype=torch.float32)
    o = empty(inputs, *inputs.v.shape)
    _pass(call, _Walk(initial=initial, o=o, last=final if plan.segments == 1 else None))
    return Attended(o, final, kept)


@dataclass(frozen=True)
class _Call:
    """What every pass of one call reads."""

    inputs: Inputs
    plan: Plan
    ready: Operands
    within: Within


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """What one pass starts from and writes, None for what it has no need of; ``identity``: of the identity in place of
    the values."""

    initial: Tensor | None = None
    o: Tensor | None = None
    last: Tensor | None = None
    factors: Tensor | None = None
    identity: bool = False


def _within(inputs: Inputs, plan: Plan) -> Within:
    """Scores, and for the delta rule inverses, where gates are by head or none."""
    heads, config = inputs.v.shape[1], plan.config("head_scores")
    scores = empty(inputs, plan.tokens, heads, plan.chunk)
    overlaps = empty(inputs, plan.tokens, heads, plan.chunk, dtype=torch.float32) if inputs.delta else None
    arguments = shared(inputs, plan, ["V"]) | {
        "q": inputs.q,
        "k": inputs.k,
        "log_decay": or_q(inputs, inputs.log_decay),
        "taken": or_q(inputs, inputs.taken),
        "scores": scores,
        "overlaps": or_q(inputs, overlaps),
        "scale": inputs.scale,
        "BK": config.tiles["K"],
        **rule_of(inputs),
    }
    launch(head_scores, (plan.all_chunks, heads), config, arguments)
    return Within(scores=scores, inverses=None if overlaps is None else inverses_of(inputs, plan, overlaps))


def _segment_ends(call: _Call) -> tuple[Tensor, Tensor]:
    """The state after each segment from zero, and what it multiplies the state before it by."""
    inputs, plan = call.inputs, call.plan
    heads, value_dim = inputs.v.shape[1:]
    key_dim = inputs.q.shape[-1]
    lasts = empty(inputs, plan.pieces, heads, key_dim, value_dim, dtype=torch.float32)
    if inputs.delta:
        factors = empty(inputs, plan.pieces, heads, key_dim, key_dim, dtype=torch.float32)
        _pass(call, _Walk(last=lasts))
        _pass(call, _Walk(last=factors, identity=True))
    else:
        factors = empty(inputs, plan.pieces, heads, key_dim, dtype=torch.float32)
        _pass(call, _Walk(last=lasts, factors=factors))
    return lasts, factors


def _pass(call: _Call, walk: _Walk) -> None:
    inputs, plan, ready = call.inputs, call.plan, call.ready
    config, (heads, value_dim) = plan.config("fused"), inputs.v.shape[1:]
    width, tile = inputs.q.shape[-1] if walk.identity else value_dim, config.tiles["V"]
    arguments = shared(inputs, plan) | segment_sizes(inputs, plan)
    arguments |= {
        "queries": ready.queries,
        "keys": ready.keys,
        "reads": or_q(inputs, ready.reads),
        "known": ready.known,
        "log_decay": or_q(inputs, inputs.log_decay),
        "taken": or_q(inputs, inputs.taken),
        "inverses": or_q(inputs, call.within.inverses),
        "left": or_q(inputs, ready.left),
        "scores": or_q(inputs, call.within.scores),
        "initial": or_q(inputs, walk.initial),
        "o": or_q(inputs, walk.o),
        "last": or_q(inputs, walk.last),
        "factors": or_q(inputs, walk.factors),
        "scale": inputs.scale,
        "V": width,
        "BV": tile,
        **rule_of(inputs),
        "HAS_INITIAL": walk.initial is not None,
        "WANT_OUT": walk.o is not None,
        "WANT_LAST": walk.last is not None,
        "WANT_FACTORS": walk.factors is not None,
        "IDENTITY": walk.identity,
    }
    launch(fused, (plan.pieces, -(-width // tile), heads), config, arguments)
