"""What a row of linear attention's kernels is asked: each update rule with each kind of decay, and one token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid, worst

from ..ops import linear_attention, linear_attention_step
from ..tokens import named_tokens
from . import table
from .table import FUSED, NARROW, REMOVAL_STEP_TABLE, REMOVAL_TABLE, STEP_TABLE, TABLE

DECAYS = ("constant", "none", "head", "channel")
RULES = ("delta", "hebbian")
REMOVALS = ("late", "early", "late apart", "early apart")
"""Delta rules by a removal of their own: when it reads the state, and whether it takes away along another vector than
the written key."""
LOW = ("q", "k", "v", "read", "along")
LENGTHS = (33, 1, 15, 63, 64, 65, 100, 256, 1000)
MIXED = (("delta", "channel"), ("hebbian", "head"))
LAID = tuple(kind for kind in dict.fromkeys((*MIXED, *FUSED)) if kind[0] in RULES)
"""Rules and decays whose forwards are of other kernels, or of other builds of them."""
LAID_REMOVALS = (("early", "head"), ("early", "channel"), ("late", "channel"))
"""The same of removals, which are Comba's, RWKV-7's and Gated DeltaNet-2's."""


def checks() -> Iterator[Check]:
    """Of every row of the tables: of whole sequences, and of one token."""
    kinds = grid(rule=RULES, decay=DECAYS)
    yield Check(table=TABLE, name="every kind", run=_every_kind, cases=kinds, first=kinds)
    whole = grid(rule=RULES, decay=DECAYS, layout=("whole",))
    others = grid(rule__decay=LAID, layout=("packed", "segments"))
    yield Check(table=TABLE, name="as trained", run=_as_trained, cases=[*whole, *others], first=whole)
    laid, mixed = grid(rule__decay=LAID), grid(rule__decay=MIXED)
    yield Check(table=TABLE, name="narrower heads", run=_narrower, cases=laid, first=mixed)
    sides = ("keys", "values")
    oblong = grid(rule__decay=MIXED, narrow=sides)
    yield Check(table=TABLE, name="oblong", run=_oblong, cases=grid(rule__decay=LAID, narrow=sides), first=oblong)
    yield Check(table=TABLE, name="packed", run=_packed, cases=laid, first=laid)
    yield Check(table=TABLE, name="the future", run=_future, cases=laid, first=laid)
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(rule__decay=MIXED, tokens=LENGTHS))
    yield Check(table=TABLE, name="more tokens than 16 bits", run=_long, cases=kinds)
    pieces = grid(rule=RULES, decay=DECAYS)
    yield Check(table=TABLE, name="cut into segments", run=_segments, cases=pieces, first=laid)
    yield Check(table=TABLE, name="gates that forget", run=_forgetful, cases=grid(decay=("head", "channel")))
    steps = grid(rule=RULES, decay=DECAYS[::-1], crowd=(1, 10**6))
    yield Check(table=STEP_TABLE, name="step", run=_step, cases=steps, first=steps)
    yield Check(table=STEP_TABLE, name="oblong step", run=_oblong_step, cases=kinds, first=kinds)
    yield from _removal_checks()


def _removal_checks() -> Iterator[Check]:
    """The same of delta rules with a removal of their own. One apart runs the kernels of one along the written key, on
    twice the tokens."""
    kinds = grid(rule=REMOVALS, decay=DECAYS)
    built = grid(rule__decay=(("late", "none"), ("late", "head"), *LAID_REMOVALS, ("early apart", "channel")))
    yield Check(table=REMOVAL_TABLE, name="every kind", run=_every_kind, cases=kinds, first=built)
    whole = [{**case, "layout": "whole"} for case in built]
    others = grid(rule__decay=LAID_REMOVALS, layout=("packed", "segments"))
    yield Check(table=REMOVAL_TABLE, name="as trained", run=_as_trained, cases=[*whole, *others], first=whole)
    laid, mixed = grid(rule__decay=LAID_REMOVALS), grid(rule__decay=LAID_REMOVALS[:2])
    yield Check(table=REMOVAL_TABLE, name="narrower heads", run=_narrower, cases=laid, first=mixed)
    oblong = grid(rule__decay=LAID_REMOVALS, narrow=("keys", "values"))
    yield Check(table=REMOVAL_TABLE, name="oblong", run=_oblong, cases=oblong, first=oblong[:4])
    several = [*laid, *grid(rule=("early apart",), decay=("channel",))]
    yield Check(table=REMOVAL_TABLE, name="packed", run=_packed, cases=several, first=several)
    yield Check(table=REMOVAL_TABLE, name="the future", run=_future, cases=several, first=several)
    lengths = grid(rule__decay=LAID_REMOVALS, tokens=LENGTHS)
    yield Check(table=REMOVAL_TABLE, name="lengths", run=_lengths, cases=lengths)
    yield Check(table=REMOVAL_TABLE, name="more tokens than 16 bits", run=_long, cases=built)
    yield Check(table=REMOVAL_TABLE, name="cut into segments", run=_segments, cases=built, first=laid)
    forgetful = grid(decay=("head", "channel"), rule=REMOVALS)
    yield Check(table=REMOVAL_TABLE, name="gates that forget", run=_forgetful, cases=forgetful)
    steps = grid(rule=REMOVALS, decay=DECAYS[::-1], crowd=(1, 10**6))
    yield Check(table=REMOVAL_STEP_TABLE, name="step", run=_step, cases=steps, first=steps)
    yield Check(table=REMOVAL_STEP_TABLE, name="oblong step", run=_oblong_step, cases=kinds, first=kinds)


def draw_inputs(
    decay: str, rule: str, *, tokens: int, dim: int, values: int = 0, batch: int = 1, heads: tuple[int, int] = (1, 2)
) -> dict[str, Tensor]:
    """Signed float32 inputs `[B, T, ...]` of so many heads of keys and of values, with an initial state; of `dim`
    channels, or of `values` in values where that is not 0."""
    draw, (H, HV) = torch.Generator().manual_seed(tokens), heads
    values = values or dim

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    gates = {"constant": (HV,), "head": (batch, tokens, HV), "channel": (batch, tokens, HV, dim)}
    inputs = {
        "q": normal(batch, tokens, H, dim),
        "k": F.normalize(normal(batch, tokens, H, dim), dim=-1),
        "v": normal(batch, tokens, HV, values),
        "initial_state": normal(batch, HV, dim, values),
    }
    if decay != "none":
        inputs["log_decay"] = -2 * torch.rand(gates[decay], generator=draw)
    if rule == "delta":
        inputs["beta"] = torch.rand(batch, tokens, HV, generator=draw)
    if rule in REMOVALS:
        rates = torch.rand(batch, tokens, HV, dim, generator=draw)
        keys = inputs["k"].repeat_interleave(HV // H, dim=2)
        if rule.endswith("apart"):
            inputs["read"] = F.normalize(normal(batch, tokens, HV, dim), dim=-1)
            inputs["along"] = rates * inputs["read"]
        else:
            inputs["read"] = rates * keys
    return inputs


def _op(impl: str, rule: str, bounds: Tensor | None = None) -> Op:
    """Outputs and the last state; where there is no initial state, as where a model is trained, outputs alone."""

    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        given = dict(inputs)
        state = given.pop("initial_state", None)
        tokens, wanted = named_tokens(given, early=rule.startswith("early")), state is not None
        found = linear_attention(tokens, initial_state=state, cu_seqlens=bounds, impl=impl, want_state=wanted)
        return found if wanted else found[:1]

    return run  # type: ignore[return-value]


def _whole(
    attempt: Attempt, rule: str, drawn: dict[str, Tensor], *, bounds: Tensor | None = None, exact: str = "reference"
) -> Verdict:
    ours, theirs = (_op(impl, rule, bounds) for impl in ("triton", exact))
    return compare(ours, theirs, attempt.held(drawn, LOW), trained=list(drawn))


def _every_kind(attempt: Attempt, rule: str, decay: str) -> Verdict:
    return _whole(attempt, rule, draw_inputs(decay, rule, tokens=attempt.many(150, 40), dim=attempt.dim, batch=2))


def _as_trained(attempt: Attempt, rule: str, decay: str, layout: str) -> Verdict:
    """From no state, and without the last one: other builds of the kernels; whole sequences with a head of keys for
    each of values, whose gradients are summed over no group, which are others again."""
    tokens = {"whole": attempt.many(150, 40), "packed": attempt.crowd[1], "segments": _cut(attempt)}[layout]
    heads = (2, 2) if layout == "whole" else (1, 2)
    drawn = draw_inputs(decay, rule, tokens=tokens, dim=attempt.dim, heads=heads)
    del drawn["initial_state"]
    if layout == "packed":
        return _whole(attempt, rule, drawn, bounds=attempt.uneven(), exact="chunkwise")
    with _told(**(_SHORT if layout == "segments" else {})):
        return _whole(attempt, rule, drawn)


def _narrower(attempt: Attempt, rule: str, decay: str) -> Verdict:
    return _whole(attempt, rule, draw_inputs(decay, rule, tokens=attempt.many(70, 40), dim=attempt.dim - 4))


def _oblong(attempt: Attempt, rule: str, decay: str, narrow: str) -> Verdict:
    """Keys or values of few channels beside the row's."""
    few = min(NARROW, attempt.dim // 2)
    keys, values = (few, attempt.dim) if narrow == "keys" else (attempt.dim, few)
    return _whole(attempt, rule, draw_inputs(decay, rule, tokens=attempt.many(100, 40), dim=keys, values=values))


def _lengths(attempt: Attempt, rule: str, decay: str, tokens: int) -> Verdict:
    return _whole(attempt, rule, draw_inputs(decay, rule, tokens=tokens, dim=attempt.dim, batch=2))


def _long(attempt: Attempt, rule: str, decay: str) -> Verdict:
    return _whole(attempt, rule, draw_inputs(decay, rule, tokens=attempt.long, dim=attempt.dim), exact="chunkwise")


def _packed(attempt: Attempt, rule: str, decay: str) -> Verdict:
    count, tokens = attempt.crowd
    drawn = draw_inputs(decay, rule, tokens=tokens, dim=attempt.dim)
    draw = torch.Generator().manual_seed(2)
    drawn["initial_state"] = torch.randn(count, 2, attempt.dim, attempt.dim, generator=draw)
    return _whole(attempt, rule, drawn, bounds=attempt.uneven(), exact="chunkwise")


def _forgetful(attempt: Attempt, decay: str, rule: str = "delta") -> Verdict:
    drawn = draw_inputs(decay, rule, tokens=attempt.many(90, 40), dim=attempt.dim)
    drawn["log_decay"][:, 3] = -1000.0
    drawn["log_decay"][:, 20:30] = 0.0
    return _whole(attempt, rule, drawn)


def _future(attempt: Attempt, rule: str, decay: str) -> Verdict:
    inputs = attempt.held(draw_inputs(decay, rule, tokens=attempt.many(150, 50), dim=attempt.dim), LOW)
    return future_unseen(_op("triton", rule), inputs, inputs.keys() - {"initial_state"}, attempt.many(77, 37))


@contextmanager
def _told(**limits: int) -> Iterator[None]:
    """Limits of the table by which sequences are cut, and steps into tiles."""
    before = {name: getattr(table, name) for name in limits}
    try:
        for name, limit in limits.items():
            setattr(table, name, limit)
        yield
    finally:
        for name, limit in before.items():
            setattr(table, name, limit)


_SHORT = {"SHORTEST_SEGMENT": 1, "FEWEST_SEGMENTS": 2}
"""Limits by which `_cut` tokens are segments."""


def _cut(attempt: Attempt) -> int:
    return attempt.key[2] * attempt.many(9, 4) + 3


def _segments(attempt: Attempt, rule: str, decay: str) -> Verdict:
    """As sequences are that are long, and too few to keep a card busy."""
    drawn = draw_inputs(decay, rule, tokens=_cut(attempt), dim=attempt.dim)
    with _told(**_SHORT):
        return _whole(attempt, rule, drawn)


def _oblong_step(attempt: Attempt, rule: str, decay: str) -> Verdict:
    """Values of more channels than keys, in tiles of which the last is not full."""
    return _step(attempt, rule, decay, crowd=1, values=3 * attempt.dim // 2 + 4)


def _step(attempt: Attempt, rule: str, decay: str, crowd: int, values: int = 0) -> Verdict:
    drawn = draw_inputs(decay, rule, tokens=1, dim=attempt.dim, values=values, batch=3, heads=(2, 4))
    token = {name: x if name == "initial_state" or x.dim() == 1 else x[:, 0] for name, x in drawn.items()}
    token["state"] = token.pop("initial_state")
    inputs = attempt.held(token, LOW)

    def stepping(impl: str, *, in_place: bool = False) -> Op:
        def run(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            given = dict(given)
            state = given.pop("state")
            return linear_attention_step(
                named_tokens(given, early=rule.startswith("early")), state, impl=impl, in_place=in_place
            )

        return run  # type: ignore[return-value]

    with _told(STEP_CROWD=crowd):
        found = [compare(stepping("triton", in_place=one), stepping("reference"), inputs) for one in (False, True)]
    return worst(found)
