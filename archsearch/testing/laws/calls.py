"""Laws of a call: the same gives the same, an input stays as it is, and sequences of a batch do not meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from archsearch.model import Context, Mixer
from archsearch.testing.case import Case
from archsearch.testing.laws.law import law
from archsearch.testing.laws.runs import prefilled, same, seeded, stepped, whole

TOKENS = 40


@law(
    "In evaluation the same input gives the same output.",
    cause="dropout or noise that does not ask self.training, or a buffer that forward updates",
)
def evaluation_repeats_itself(case: Case) -> None:
    """Two calls, whose random numbers differ."""
    mixer, x = case.mixer(), case.inputs(2, TOKENS)
    state = mixer.init_state(2, TOKENS + 1)
    with torch.no_grad():
        for name, run in _forms(mixer).items():
            with seeded(1):
                first = run(x.clone(), state.clone())
            with seeded(2):
                second = run(x.clone(), state.clone())
            same(second, first, f"a second {name} differs from the first", case.causal_tolerance)


@law(
    "Neither forward nor step writes into its input.",
    cause="an operation in place (add_, mul_, a masked write) on x or on a view of it",
)
def inputs_stay_as_they_are(case: Case) -> None:
    """An input is compared with a copy of it."""
    mixer, x = case.mixer(), case.inputs(2, TOKENS)
    kept = x.clone()
    with torch.no_grad():
        for name, run in _forms(mixer).items():
            run(x, mixer.init_state(2, TOKENS + 1))
            same(x, kept, f"{name} has written into its input, which differs", 0.0)


def _forms(mixer: Mixer) -> Mapping[str, Callable[..., Tensor]]:
    """Each form of a call, as a function of its input and an empty state."""
    return {
        "forward": lambda x, state: mixer(x, ctx=Context())[0],
        "prefill": lambda x, state: mixer(x, state=state, ctx=Context(want_state=True))[0],
        "step": lambda x, state: mixer.step(x[:, 0], state=state, ctx=Context(want_state=True))[0][:, None],
    }


@law(
    "A sequence of a batch changes no other's output and no other's state.",
    cause="a mean, a norm or a choice over the batch, or rows of a cache that two sequences share",
)
def sequences_of_a_batch_are_apart(case: Case) -> None:
    """The middle one of three sequences is another."""
    mixer, x = case.mixer(), case.inputs(3, TOKENS)
    other = x.clone()
    other[1] = 3 * case.noise(x[1], seed=5)
    with torch.no_grad():
        for name, found in _seen(mixer, x, other).items():
            first, second = (tensor[[0, 2]].flatten(2).double() for tensor in found)
            same(second, first, f"of a batch's other sequences {name} differs", case.causal_tolerance)


def _seen(mixer: Mixer, x: Tensor, other: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Outputs and tensors of the state after each, by name, of both batches."""
    found: dict[str, list[Tensor]] = {}
    for batch in (x, other):
        out, state = prefilled(mixer, batch[:, :-1], mixer.init_state(3, TOKENS))
        seen = {"forward": whole(mixer, batch), "a prefill": out}
        seen |= {f'"{name}" of the state': tensor.clone()[:, :, None] for name, tensor in state.tensors.items()}
        y, state = stepped(mixer, batch[:, -1], state)
        seen |= {"a step": y[:, None]}
        seen |= {f'"{name}" of the state after a step': tensor[:, :, None] for name, tensor in state.tensors.items()}
        for name, tensor in seen.items():
            found.setdefault(name, []).append(tensor)
    return {name: (first, second) for name, (first, second) in found.items()}


LAWS = (evaluation_repeats_itself, inputs_stay_as_they_are, sequences_of_a_batch_are_apart)
