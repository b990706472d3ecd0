"""Laws of traffic: what a decode step moves is what the plugin says, and what it says is dense drops nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from archsearch.mixer import Traffic
from archsearch.model import Mixer
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.laws.runs import whole
from archsearch.testing.reads import StepReads, step_reads, stretch_reads

FIRST, STRETCH = 32, 16
"""Tokens before a stretch of steps that are looked at one by one, and how many they are."""
LONGEST_DENSE = 300
SEQUENCES = 8
"""In which a token is looked for that is dropped: where the last one drops itself as a key, it still asks."""
_WAYS = (("read_bytes", "most_read", "reads"), ("written_bytes", "most_written", "writes"))


@law(
    "A step reads and writes no more than traffic() states, and where every step is alike no less.",
    cause="a cache that is read whole, rows for query heads where key heads are meant, or bytes of another dtype",
    runs_layer=False,
)
def decode_reads_what_traffic_says(case: Case) -> None:
    """Single steps, by disturbing the state; a mean is a bound from below where no peak is stated."""
    for grouped in (True, False):
        shape = case.shape if grouped else replace(case.shape, n_kv_heads=case.shape.n_heads)
        mixer, figures = case.mixer(shape), case.figures(shape)
        for context in case.traffic_contexts:
            x, said = case.inputs(1, context), figures.traffic(context=context)
            seen = step_reads(mixer, x)
            _at_most_the_peak(seen, said, context)
            alike = (said.most_read, said.most_written) == (said.read_bytes, said.written_bytes)
            if alike and not grouped:  # query heads of one group may read the same rows, or rows of their own
                _no_less(seen, mixer, x, said, 1 + case.traffic_slack)


def _at_most_the_peak(seen: StepReads, said: Traffic, context: int) -> None:
    for mean, peak, verb in _WAYS:
        found, allowed = getattr(seen, mean), getattr(said, peak)
        if found > allowed:
            raise LawBroken(
                f"at {context} tokens a step {verb} {found} bytes, and traffic() states {allowed:g} at most"
            )


def _no_less(seen: StepReads, mixer: Mixer, x: Tensor, said: Traffic, slack: float) -> None:
    """What was `seen` of the last token of x, or is where one looks closer, is all that is said."""
    if not _less(seen, said, slack):
        return
    seen = step_reads(mixer, x, closer=True)
    for found, stated, verb in _less(seen, said, slack):
        raise LawBroken(f"at {x.shape[1]} tokens a step {verb} {found} bytes alone, and traffic() states {stated:g}")


def _less(seen: StepReads, said: Traffic, slack: float) -> list[tuple[int, float, str]]:
    """Bytes that are seen, those that are said, and the verb, where the first are fewer."""
    read_back = seen.written_bytes + seen.shared_bytes  # a row that is written in the step may be read in it
    most = {"reads": seen.read_bytes + read_back, "writes": seen.written_bytes + seen.untold_bytes}
    return [
        (getattr(seen, mean), getattr(said, mean), verb)
        for mean, _, verb in _WAYS
        if getattr(said, mean) > most[verb] * slack
    ]


@law(
    "Over steps in a row none moves more than the stated peak, and together they move no more than the stated mean.",
    cause="a cache that is rewritten every so often, of which traffic() states the mean and no peak",
    runs_layer=False,
)
def no_step_moves_more_than_the_peak(case: Case) -> None:
    """A stretch of steps; it may hold one costly step more than its share."""
    shape = case.one_head()
    mixer, figures = case.mixer(shape), case.figures(shape)
    contexts = range(FIRST + 1, FIRST + STRETCH + 1)
    seen = stretch_reads(mixer, case.inputs(1, FIRST + STRETCH), STRETCH)
    said = [figures.traffic(context=context) for context in contexts]
    for context, step, stated in zip(contexts, seen, said, strict=True):
        _at_most_the_peak(step, stated, context)
    for mean, peak, verb in _WAYS:
        found = sum(getattr(step, mean) for step in seen) / STRETCH
        stated = sum(getattr(one, mean) for one in said) / STRETCH
        one_more = max(getattr(one, peak) - getattr(one, mean) for one in said) / STRETCH
        allowed = stated * (1 + case.traffic_slack) + one_more
        if found > allowed * (1 + 1e-9):
            raise LawBroken(
                f"from {contexts[0]} to {contexts[-1]} tokens a step {verb} {found:g} bytes on the mean, and traffic() "
                f"states {stated:g} (allowed {allowed:g})"
            )


@law(
    "On dense_up_to() tokens every token reaches the last output, and on one more some token does not.",
    cause="a window or a number of blocks that is off by one, or sinks that are not counted",
    runs_layer=False,
)
def dense_up_to_is_true(case: Case) -> None:
    """Reach by gradients, on a layer of one head, as heads may drop different tokens."""
    longest = case.figures().dense_up_to()
    if not 0 < longest <= LONGEST_DENSE:
        raise NothingToTry(f"dense_up_to() = {longest}: nothing to try")
    mixer = case.mixer(case.one_head())
    dropped = _dropped(case, mixer, longest)
    if dropped:
        raise LawBroken(f"on {longest} tokens, dense_up_to(), token {dropped[0]} is dropped already")
    if case.drops_beyond and not _dropped(case, mixer, longest + 1, rows=SEQUENCES):
        raise LawBroken(f"on {longest + 1} tokens, one more than dense_up_to(), no token is dropped yet")


def _dropped(case: Case, mixer: Mixer, tokens: int, *, rows: int = 1) -> list[int]:
    """The tokens without an influence on the last token's output, in any of so many sequences."""
    x = case.inputs(rows, tokens).requires_grad_()
    (gradient,) = torch.autograd.grad(whole(mixer, x)[:, -1].square().sum(), x)
    reached = (gradient.abs().amax(-1) > 0).all(0)
    return [token for token, all_reach in enumerate(reached) if not all_reach]


LAWS = (decode_reads_what_traffic_says, no_step_moves_more_than_the_peak, dense_up_to_is_true)
