"""The law of matrix products: flops() states those that the layer is seen to do.

Counted are the products of the fast form in PyTorch and of the reference, on a CPU. A form may do more than it needs:
pairs that a mask throws away. Of what it does, the part that grows with the square of the sequence is told from two
lengths, and the half of it may be masked. So a form allows an amount ``said`` where
``least * (linear + square / 2) <= said <= MOST * (linear + square)``, and some form must allow it:

- in a wide model, where the projections are nearly all, ``least`` is 1/2: what is stated is within a factor of 2 of
  what is counted;
- in the case's own sizes, where the core of the mixer weighs, it is 1/4, as chunks, bands and chosen blocks are
  computed with more masked pairs than the half of a square, and 1/8 for a decoded token, which may read whole blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from archsearch.mixer import Phase
from archsearch.model import Mixer
from archsearch.testing.case import CPU, Case
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.laws.runs import prefilled, stepped, whole
from archsearch.testing.products import products
from archsearch.testing.stack import Stack

TOKENS, WIDER = 64, 16
MOST = 2.0
LEAST: Mapping[Phase, float] = {"prefill": 1 / 2, "train": 1 / 2, "decode": 1 / 2}
LEAST_OF_CORE: Mapping[Phase, float] = {"prefill": 1 / 4, "train": 1 / 4, "decode": 1 / 8}
FORMS = ("auto", "reference")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Products of one form, and how few of them may be needed."""

    done: float
    needed: float

    def allows(self, said: float, least: float) -> bool:
        """Whether an amount that is stated agrees with them."""
        return least * self.needed <= said <= MOST * self.done


@law(
    "flops() states the matrix products that the layer does, in training, prefill and decoding.",
    cause="multiplications counted once and not twice, heads or tokens left out, or the whole square of a causal mask",
    runs_layer=False,
)
def flops_are_those_that_are_counted(case: Case) -> None:
    """A sequence and a step, in a wide model and in the case's own sizes."""
    case = replace(case, device=CPU)
    wide = replace(case, shape=replace(case.shape, d_model=WIDER * case.shape.d_model))
    for sized, least in ((wide, LEAST), (case, LEAST_OF_CORE)):
        forms = list(_forms(sized))
        for phase in least:
            _agree(sized, phase, [form[phase] for form in forms], least[phase])


def _agree(case: Case, phase: Phase, forms: list[Counted], least: float) -> None:
    said = case.figures().flops(phase=phase, context=TOKENS).matmul
    if not any(form.done for form in forms):
        raise NothingToTry("the layer does no matrix product that can be counted")
    if any(form.allows(said, least) for form in forms):
        return
    counted = min(forms, key=lambda form: form.done)
    raise LawBroken(
        f'flops(phase="{phase}", context={TOKENS}) in a model {case.shape.d_model} wide states {said:g} of matrix '
        f"product, and {counted.done:g} are counted (allowed {least * counted.needed:g} to {MOST * counted.done:g})"
    )


def _forms(case: Case) -> Iterator[dict[Phase, Counted]]:
    """What each form does over a sequence and in a step, by phase."""
    for impl in FORMS:
        with case.using(impl):
            mixer = case.mixer()
            step = _step(case, mixer)
            yield {
                "prefill": _sequence(case, mixer),
                "decode": Counted(done=step, needed=step),
                "train": _sequence(case, mixer.train()),
            }


def _sequence(case: Case, mixer: Mixer) -> Counted:
    """Of `TOKENS` tokens: with those of twice as many, the part that is a square is known."""

    def done(count: int) -> float:
        x = case.inputs(1, count)
        return _own(mixer, lambda one: products(lambda: whole(one, x)))

    once, twice = done(TOKENS), done(2 * TOKENS)
    square = min(max(0.0, (twice - 2 * once) / 2), once)
    return Counted(done=once, needed=once - square / 2)


def _step(case: Case, mixer: Mixer) -> float:
    x = case.inputs(1, TOKENS)

    def done(one: Mixer) -> float:
        with torch.no_grad():
            _, state = prefilled(one, x[:, :-1], one.init_state(1, TOKENS))
        return products(lambda: stepped(one, x[:, -1], state))

    return _own(mixer, done)


def _own(mixer: Mixer, done: Callable[[Mixer], float]) -> float:
    """What the layer does alone, without those that are run before it for what they share."""
    before = mixer.before() if isinstance(mixer, Stack) else None
    return done(mixer) - (0.0 if before is None else done(before))


LAWS = (flops_are_those_that_are_counted,)
