"""The law of positions: they turn embeddings, and say nothing of which token came first."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.model import Context
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.laws.runs import continued, packed_context, same, whole

TOKENS = 60


@law(
    "With positions given, outputs depend on no later token, all forms agree, and the usual ones change nothing.",
    cause="a mask, a count or a row of the cache by ctx.positions_of where ctx.order_of is meant",
    declared="positions",
)
def order_is_not_read_from_positions(case: Case) -> None:
    """Positions that rise with gaps, and some that fall."""
    with torch.no_grad():
        usual = torch.arange(TOKENS, device=case.device)[None].expand(2, -1)
        try:
            _hold(case, "no positions given", None)
        except LawBroken as broken:
            raise NothingToTry(f"another law is broken without them: {broken}") from None
        _usual_change_nothing(case, usual)
        for name, positions in _others(usual).items():
            _hold(case, name, positions)


def _hold(case: Case, name: str, positions: Tensor | None) -> None:
    """The laws of forms, causality and packing, with positions `[2, T]`."""
    _forms_agree(case, name, positions)
    _future_is_not_seen(case, name, None if positions is None else positions[:1])
    _packed_are_apart(case, name, None if positions is None else positions[:1])


def _others(usual: Tensor) -> dict[str, Tensor]:
    """`[2, T]`, by name."""
    return {"positions with gaps": 3 * usual + usual // 7 + 2, "positions that fall": 2 * usual + 5 - 3 * (usual % 3)}


def _usual_change_nothing(case: Case, usual: Tensor) -> None:
    mixer, x = case.mixer(), case.inputs(2, TOKENS)
    wanted = whole(mixer, x)
    what = "with the usual positions given, {} differs"
    same(whole(mixer, x, Context(positions=usual)), wanted, what.format("forward"), case.tolerance)
    pieces = [20, *[1] * (TOKENS - 20)]
    given, _ = continued(mixer, x, pieces, mixer.init_state(2, TOKENS), usual)
    kept, _ = continued(mixer, x, pieces, mixer.init_state(2, TOKENS))
    same(given, kept, what.format("decoding"), case.tolerance)


def _forms_agree(case: Case, name: str, positions: Tensor | None) -> None:
    mixer, x = case.mixer(), case.inputs(2, TOKENS)
    wanted = whole(mixer, x, Context(positions=positions))
    ways = {
        "step": ("repeated step", [1] * TOKENS),
        "split": ("a prefill of 20, one of 13 and steps", [20, 13, *[1] * (TOKENS - 33)]),
    }
    for declared, (way, pieces) in ways.items():
        if declared in case.plugin.broken_laws:
            continue
        found, _ = continued(mixer, x, pieces, mixer.init_state(2, TOKENS), positions)
        same(found, wanted, f"with {name} {way} differs from forward", case.tolerance)


def _future_is_not_seen(case: Case, name: str, positions: Tensor | None) -> None:
    if "causal" in case.plugin.broken_laws:
        return
    mixer, x = case.mixer(), case.inputs(1, TOKENS)
    wanted = whole(mixer, x, Context(positions=positions))
    for token in (1, 8, 33, TOKENS - 1):
        changed = x.clone()
        changed[:, token] += 3 * case.noise(x[:, token])
        what = f"with {name} and another token {token} an earlier output differs"
        found = whole(mixer, changed, Context(positions=positions))
        same(found[:, :token], wanted[:, :token], what, case.causal_tolerance)


def _packed_are_apart(case: Case, name: str, positions: Tensor | None) -> None:
    if "packed" in case.plugin.broken_laws:
        return
    mixer, x, lengths = case.mixer(), case.inputs(1, TOKENS), [7, 1, TOKENS - 8]
    own = [None if positions is None else positions[:, :length] for length in lengths]
    laid = None if positions is None else torch.cat([one for one in own if one is not None], 1)
    packed = whole(mixer, x, packed_context(case, lengths, laid))
    parts = zip(x.split(lengths, 1), own, strict=True)
    alone = torch.cat([whole(mixer, part, Context(positions=one)) for part, one in parts], 1)
    same(packed, alone, f"with {name} packed sequences differ from each alone", case.tolerance)


LAWS = (order_is_not_read_from_positions,)
