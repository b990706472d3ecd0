"""The law of causality: no output depends on a later token, in whichever way the layer is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from archsearch.model import Context, Mixer
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, law
from archsearch.testing.laws.runs import packed_context, prefilled, whole

CLOSE = (0, 1, 15, 16, 17, 33, 63, 64, 65, 96, 127, 128, 129, 192)
"""Tokens at the edges of blocks and chunks, where a leak is likeliest."""

Run = Callable[[Tensor], Tensor]


@law(
    "No output depends on a later token: in evaluation, in training, with a state, packed, and after a prefill.",
    cause="a mask that is off by one, a chunk that is read whole, or a mean over the sequence",
    declared="causal",
)
def no_token_sees_the_future(case: Case) -> None:
    """One token is disturbed, and outputs before it must stay."""
    mixer = case.mixer()
    with torch.no_grad():
        every = range(0, case.tokens, 7 if case.interpreted else 1)
        _tried(case, lambda x: whole(mixer, x), "forward", case.tokens, list(every))
        if case.interpreted:
            return
        for name, run, tokens in _ways(case, mixer):
            _tried(case, run, name, tokens, [token for token in CLOSE if token < tokens])


def _ways(case: Case, mixer: Mixer) -> Iterator[tuple[str, Run, int]]:
    """Every other way to run a layer, by its name, with the tokens to try."""
    yield "forward of a long sequence", lambda x: whole(mixer, x), 200
    yield "forward with a state wanted", lambda x: whole(mixer, x, Context(want_state=True)), 130
    yield "a second prefill", lambda x: _second(mixer, case, x), 130
    yield "forward of packed sequences", lambda x: _packed(mixer, case, x), 130
    mixer.train()
    yield "forward in training", lambda x: whole(mixer, x), 130
    mixer.eval()


def _second(mixer: Mixer, case: Case, x: Tensor) -> Tensor:
    first = case.inputs(1, 5).expand(len(x), -1, -1)
    _, state = prefilled(mixer, first, mixer.init_state(len(x), 5 + x.shape[1]))
    return prefilled(mixer, x, state)[0]


def _packed(mixer: Mixer, case: Case, x: Tensor) -> Tensor:
    """Each row by itself, as the second of three sequences."""
    lengths, around = [4, x.shape[1], 7], case.inputs(1, 11)
    rows = [torch.cat((around[:, :4], row[None], around[:, 4:]), 1) for row in x]
    return torch.cat([whole(mixer, row, packed_context(case, lengths))[:, 4:-7] for row in rows])


def _tried(case: Case, run: Run, name: str, tokens: int, disturbed: list[int]) -> None:
    x = case.inputs(1, tokens)
    each = torch.tensor(disturbed, device=case.device)
    changed = x.repeat(len(each), 1, 1)
    by = 3 * torch.randn(len(each), x.shape[2], generator=torch.Generator().manual_seed(2))
    changed[torch.arange(len(each), device=case.device), each] += by.to(changed)
    difference = (run(changed) - run(x.repeat(len(each), 1, 1))).abs().amax(-1)  # [disturbed, seen by]
    earlier = torch.arange(tokens, device=case.device) < each[:, None]
    seen = earlier & ~(difference <= case.causal_tolerance)
    if seen.any():
        row, token = (int(index) for index in seen.nonzero()[0])
        raise LawBroken(
            f"in {name} token {disturbed[row]} changes the output of token {token} by {difference[row, token]:.2g} "
            f"(allowed {case.causal_tolerance:g})"
        )


LAWS = (no_token_sees_the_future,)
