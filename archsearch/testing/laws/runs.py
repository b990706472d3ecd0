"""Runs: a layer over sequences in each of its forms, and how what came out is compared.

Each call has a copy of its input and the same random numbers, so that a layer that writes to the one or draws the other
breaks the law that says so, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from archsearch.model import Context, Mixer, MixerState
from archsearch.testing.case import Case, seed
from archsearch.testing.laws.law import LawBroken


@contextmanager
def seeded(number: int = 0) -> Iterator[None]:
    """The same random numbers in every call."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        seed(number)
        yield


def whole(mixer: Mixer, x: Tensor, ctx: Context | None = None) -> Tensor:
    """The parallel form of `x` `[B, T, D]`."""
    with seeded():
        out: Tensor = mixer(x.clone(), ctx=ctx or Context())[0]
    return out


def prefilled(mixer: Mixer, x: Tensor, state: MixerState, ctx: Context | None = None) -> tuple[Tensor, MixerState]:
    """`x` `[B, T, D]` in one piece after `state`, and the state after it."""
    with seeded():
        out, after = mixer(x.clone(), state=state, ctx=ctx or Context(want_state=True))
    if not isinstance(after, MixerState):
        raise LawBroken(f"forward with a state returned {type(after).__name__} for the state after it")
    return out, after


def stepped(mixer: Mixer, x_t: Tensor, state: MixerState, ctx: Context | None = None) -> tuple[Tensor, MixerState]:
    """One token `[B, D]` after `state`, and the state after it."""
    with seeded():
        out, after = mixer.step(x_t.clone(), state=state, ctx=ctx or Context(want_state=True))
    if not isinstance(after, MixerState):
        raise LawBroken(f"step returned {type(after).__name__} for the state after it")
    return out, after


def continued(
    mixer: Mixer, x: Tensor, pieces: Sequence[int], state: MixerState, positions: Tensor | None = None
) -> tuple[Tensor, MixerState]:
    """`x` `[B, T, D]` piece by piece after `state`: a step for a piece of one token, else a prefill."""
    outputs, ends = [], torch.tensor(pieces).cumsum(0).tolist()
    for end, count in zip(ends, pieces, strict=True):
        piece = x[:, end - count : end]
        given = None if positions is None else positions[:, end - count : end]
        ctx = Context(want_state=True, positions=given)
        if count == 1:
            out, state = stepped(mixer, piece[:, 0], state, ctx)
            out = out[:, None]
        else:
            out, state = prefilled(mixer, piece, state, ctx)
        outputs.append(out)
    return torch.cat(outputs, dim=1), state


def stacked(states: Sequence[MixerState]) -> MixerState:
    """One state of the sequences of several."""
    tensors = {name: torch.cat([state.tensors[name] for state in states]) for name in states[0].tensors}
    lengths = torch.cat([state.lengths for state in states])
    return MixerState(tensors=tensors, lengths=lengths, capacity=states[0].capacity)


def packed_context(case: Case, lengths: Sequence[int], positions: Tensor | None = None) -> Context:
    """The context of sequences laid end to end."""
    bounds = torch.tensor([0, *lengths], device=case.device).cumsum(0)
    return Context(cu_seqlens=bounds, positions=positions)


def same(found: Tensor, wanted: Tensor, what: str, tolerance: float) -> None:
    """Raises `LawBroken` where two outputs `[B, T, D]` differ by more than `tolerance`, absolutely and as a share.

    `what` is such as "repeated step differs from forward".
    """
    if found.shape != wanted.shape:
        raise LawBroken(f"{what}: {list(found.shape)} for {list(wanted.shape)}")
    if not found.numel():
        return
    difference = (found.double() - wanted.double()).abs()
    wrong = ~(difference <= tolerance * (1 + wanted.double().abs()))  # what is not a number is wrong too
    if wrong.any():
        token = int(wrong.any(-1).any(0).nonzero()[0])
        worst = difference[wrong].max().item() if not difference[wrong].isnan().any() else float("nan")
        raise LawBroken(f"from token {token} on, {what} by {worst:.2g} (allowed {tolerance:g})")


def rebuilt(state: MixerState) -> MixerState:
    """A state of the same tensors, lengths and capacity, and of nothing else."""
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    return MixerState(tensors=tensors, lengths=state.lengths.clone(), capacity=state.capacity)
