"""Laws of forms: the forward pass, repeated steps, and prefills followed by steps give the same."""

from __future__ import annotations

import torch

from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, law
from archsearch.testing.laws.runs import continued, prefilled, same, stacked, stepped, whole

FIRSTS = (1, 5, 64, 80)
"""Tokens of a first prefill."""


@law(
    "Token by token, steps give what the forward pass gives.",
    cause="a cache that is too short, or a row that is overwritten",
    declared="step",
)
def forward_equals_repeated_step(case: Case) -> None:
    """Steps from an empty state, over a long sequence."""
    mixer, x = case.mixer(), case.inputs(2, case.long)
    with torch.no_grad():
        found, _ = continued(mixer, x, [1] * case.long, mixer.init_state(2, case.long))
        same(found, whole(mixer, x), "repeated step differs from forward", case.tolerance)


@law(
    "A prefill in two pieces, and steps after it, give what the forward pass gives.",
    cause="a second prefill that does not go on from the state, or a state that a prefill leaves another than steps do",
    declared="split",
)
def forward_equals_split_prefill_then_steps(case: Case) -> None:
    """Prefills that end inside of blocks and at their ends."""
    mixer, x = case.mixer(), case.inputs(2)
    with torch.no_grad():
        wanted = whole(mixer, x)
        for first in sorted({max(1, min(first, case.tokens - 4)) for first in FIRSTS}):
            second = max(0, min(13, case.tokens - first - 3))
            pieces = [first, *[second] * (second > 0), *[1] * (case.tokens - first - second)]
            found, _ = continued(mixer, x, pieces, mixer.init_state(2, case.tokens))
            what = f"a prefill of {first}, one of {second} and steps differ from forward"
            same(found, wanted, what, case.tolerance)


@law(
    "A second prefill much longer than the first gives what the forward pass gives.",
    cause="a second prefill that does not go on from the state, or that sees a window too few tokens back",
    declared="split",
)
def long_second_prefill(case: Case) -> None:
    """Three tokens, then all the others."""
    mixer, x = case.mixer(), case.inputs(2)
    with torch.no_grad():
        found, _ = continued(mixer, x, [3, case.tokens - 3], mixer.init_state(2, case.tokens))
        same(found, whole(mixer, x), "a second prefill after 3 tokens differs from forward", case.tolerance)


@law(
    "Sequences of different lengths in one batch decode as each does alone.",
    cause="rows, masks or counts by the longest sequence instead of each one's own length",
    declared="split",
)
def ragged_lengths_decode_as_each_alone(case: Case) -> None:
    """Three prompts of different lengths, then ten tokens of each."""
    mixer, rest = case.mixer(), 10
    lengths = [1, case.tokens - rest, min(30, case.tokens - rest)]
    pieces = [1, 1, 4, *[1] * (rest - 6)]
    later = case.inputs(3, rest + 1)[:, 1:]
    with torch.no_grad():
        states = [
            prefilled(mixer, case.inputs(3)[row : row + 1, :length], mixer.init_state(1, case.tokens))[1]
            for row, length in enumerate(lengths)
        ]
        together, after = continued(mixer, later, pieces, stacked(states))
        alone = [continued(mixer, later[row : row + 1], pieces, state.clone())[0] for row, state in enumerate(states)]
    same(
        together, torch.cat(alone), f"after prompts of {lengths} tokens a batch differs from each alone", case.tolerance
    )
    if after.lengths.tolist() != [length + rest for length in lengths]:
        raise LawBroken(f"after prompts of {lengths} tokens and {rest} more, lengths are {after.lengths.tolist()}")


@law(
    "A sequence of one token is finite, and a step gives what the forward pass gives.",
    cause="a division by the number of earlier tokens, or an empty cache that is attended to",
)
def one_token(case: Case) -> None:
    """The shortest sequence."""
    mixer, x = case.mixer(), case.inputs(2, 1)
    with torch.no_grad():
        wanted = whole(mixer, x)
        found, _ = stepped(mixer, x[:, 0], mixer.init_state(2, 1))
    if not torch.isfinite(wanted).all():
        raise LawBroken("the output of one token is not finite")
    same(found[:, None], wanted, "a step differs from forward", case.tolerance)


LAWS = (
    forward_equals_repeated_step,
    forward_equals_split_prefill_then_steps,
    long_second_prefill,
    ragged_lengths_decode_as_each_alone,
    one_token,
)
