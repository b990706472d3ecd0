"""What a row of linear attention's kernels is asked: each update rule with each kind of decay, and one token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid, worst

from ..ops import linear_attention, linear_attention_step
from ..tokens import Tokens
from . import table
from .table import FUSED, STEP_TABLE, TABLE

DECAYS = ("constant", "none", "head", "channel")
RULES = ("delta", "hebbian")
LOW = ("q", "k", "v")
LENGTHS = (33, 1, 15, 63, 64, 65, 100, 256, 1000)
MIXED = (("delta", "channel"), ("hebbian", "head"))
LAID = tuple(dict.fromkeys((*MIXED, *FUSED)))
"""Rules and decays whose forwards are of other kernels, or of other builds of them."""


def checks() -> Iterator[Check]:
    """Of every row of the tables: of whole sequences, and of one token."""
    kinds = grid(rule=RULES, decay=DECAYS)
    yield Check(table=TABLE, name="every kind", run=_every_kind, cases=kinds, first=kinds)
    whole = grid(rule=RULES, decay=DECAYS, layout=("whole",))
    others = grid(rule__decay=LAID, layout=("packed", "segments"))
    yield Check(table=TABLE, name="as trained", run=_as_trained, cases=[*whole, *others], first=whole)
    laid, mixed = grid(rule__decay=LAID), grid(rule__decay=MIXED)
    yield Check(table=TABLE, name="narrower heads", run=_narrower, cases=laid, first=mixed)
    yield Check(table=TABLE, name="packed", run=_packed, cases=laid, first=laid)
    yield Check(table=TABLE, name="the future", run=_future, cases=laid, first=laid)
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(rule__decay=MIXED, tokens=LENGTHS))
    yield Check(table=TABLE, name="more tokens than 16 bits", run=_long, cases=kinds)
    pieces = grid(rule=RULES, decay=DECAYS)
    yield Check(table=TABLE, name="cut into segments", run=_segments, cases=pieces, first=laid)
    yield Check(table=TABLE, name="gates that forget", run=_forgetful, cases=grid(decay=("head", "channel")))
    steps = grid(rule=RULES, decay=DECAYS[::-1], crowd=(1, 10**6))
    yield Check(table=STEP_TABLE, name="step", run=_step, cases=steps, first=steps)


def draw_inputs(
    decay: str, rule: str, *, tokens: int, dim: int, batch: int = 1, heads: tuple[int, int] = (1, 2)
) -> dict[str, Tensor]:
    """Signed float32 inputs `[B, T, ...]` of so many heads of keys and of values, with an initial state."""
    draw, (H, HV) = torch.Generator().manual_seed(tokens), heads

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    gates = {"constant": (HV,), "head": (batch, tokens, HV), "channel": (batch, tokens, HV, dim)}
    inputs = {
        "q": normal(batch, tokens, H, dim),
        "k": F.normalize(normal(batch, tokens, H, dim), dim=-1),
        "v": normal(batch, tokens, HV, dim),
        "initial_state": normal(batch, HV, dim, dim),
    }
    if decay != "none":
        inputs["log_decay"] = -2 * torch.rand(gates[decay], generator=draw)
    if rule == "delta":
        inputs["beta"] = torch.rand(batch, tokens, HV, generator=draw)
    return inputs


def _op(impl: str, bounds: Tensor | None = None) -> Op:
    """Outputs and the last state; where there is no initial state, as where a model is trained, outputs alone."""

    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        given = dict(inputs)
        state = given.pop("initial_state", None)
        tokens, wanted = Tokens(**given), state is not None  # type: ignore[arg-type]
        found = linear_attention(tokens, initial_state=state, cu_seqlens=bounds, impl=impl, want_state=wanted)
        return found if wanted else found[:1]

    return run  # type: ignore[return-value]


def _whole(
    attempt: Attempt, drawn: dict[str, Tensor], *, bounds: Tensor | None = None, exact: str = "reference"
) -> Verdict:
    ours, theirs = (_op(impl, bounds) for impl in ("triton", exact))
    return compare(ours, theirs, attempt.held(drawn, LOW), trained=list(drawn))


def _every_kind(attempt: Attempt, rule: str, decay: str) -> Verdict:
    return _whole(attempt, draw_inputs(decay, rule, tokens=attempt.many(150, 40), dim=attempt.dim, batch=2))


def _as_trained(attempt: Attempt, rule: str, decay: str, layout: str) -> Verdict:
    """From no state, and without the last one: other builds of the kernels."""
    tokens = {"whole": attempt.many(150, 40), "packed": attempt.crowd[1], "segments": _cut(attempt)}[layout]
    drawn = draw_inputs(decay, rule, tokens=tokens, dim=attempt.dim)
    del drawn["initial_state"]
    if layout == "packed":
        return _whole(attempt, drawn, bounds=attempt.uneven(), exact="chunkwise")
    with _told(**(_SHORT if layout == "segments" else {})):
        return _whole(attempt, drawn)


def _narrower(attempt: Attempt, rule: str, decay: str) -> Verdict:
    return _whole(attempt, draw_inputs(decay, rule, tokens=attempt.many(70, 40), dim=attempt.dim - 4))


def _lengths(attempt: Attempt, rule: str, decay: str, tokens: int) -> Verdict:
    return _whole(attempt, draw_inputs(decay, rule, tokens=tokens, dim=attempt.dim, batch=2))


def _long(attempt: Attempt, rule: str, decay: str) -> Verdict:
    return _whole(attempt, draw_inputs(decay, rule, tokens=attempt.long, dim=attempt.dim), exact="chunkwise")


def _packed(attempt: Attempt, rule: str, decay: str) -> Verdict:
    count, tokens = attempt.crowd
    drawn = draw_inputs(decay, rule, tokens=tokens, dim=attempt.dim)
    draw = torch.Generator().manual_seed(2)
    drawn["initial_state"] = torch.randn(count, 2, attempt.dim, attempt.dim, generator=draw)
    return _whole(attempt, drawn, bounds=attempt.uneven(), exact="chunkwise")


def _forgetful(attempt: Attempt, decay: str) -> Verdict:
    drawn = draw_inputs(decay, "delta", tokens=attempt.many(90, 40), dim=attempt.dim)
    drawn["log_decay"][:, 3] = -1000.0
    drawn["log_decay"][:, 20:30] = 0.0
    return _whole(attempt, drawn)


def _future(attempt: Attempt, rule: str, decay: str) -> Verdict:
    inputs = attempt.held(draw_inputs(decay, rule, tokens=attempt.many(150, 50), dim=attempt.dim), LOW)
    return future_unseen(_op("triton"), inputs, inputs.keys() - {"initial_state"}, attempt.many(77, 37))


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
        return _whole(attempt, drawn)


def _step(attempt: Attempt, rule: str, decay: str, crowd: int) -> Verdict:
    drawn = draw_inputs(decay, rule, tokens=1, dim=attempt.dim, batch=3, heads=(2, 4))
    token = {name: x if name == "initial_state" or x.dim() == 1 else x[:, 0] for name, x in drawn.items()}
    token["state"] = token.pop("initial_state")
    inputs = attempt.held(token, LOW)

    def stepping(impl: str, *, in_place: bool = False) -> Op:
        def run(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            given = dict(given)
            state = given.pop("state")
            return linear_attention_step(Tokens(**given), state, impl=impl, in_place=in_place)  # type: ignore[arg-type]

        return run  # type: ignore[return-value]

    with _told(STEP_CROWD=crowd):
        found = [compare(stepping("triton", in_place=one), stepping("reference"), inputs) for one in (False, True)]
    return worst(found)
