"""The recurrence token by token: the definition that every faster form is held to."""

from __future__ import annotations

import torch
from torch import Tensor

from .tokens import CanonicalTokens


def advance(token: CanonicalTokens, state: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """One token, `CanonicalTokens` without T: the output `[B, H, V]` and the state `[B, H, K, V]` after the write."""
    before = state
    if token.log_decay is not None:
        state = state * token.log_decay.exp()[..., None]
    v = token.v
    if token.removal is not None:
        taken = token.removal
        recalled = _read(before if taken.early else state, taken.read)
        if taken.along is None:
            v = v - recalled
        else:
            state = torch.addcmul(state, taken.along[..., None], recalled[..., None, :], value=-1)
    elif token.beta is not None:
        v = token.beta[..., None] * (v - _read(state, token.k))
    state = torch.addcmul(state, token.k[..., None], v[..., None, :])
    return scale * _read(state, token.q), state


def recurrent(tokens: CanonicalTokens, state: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """All tokens one after another: outputs `[B, T, H, V]` and the last state `[B, H, K, V]`."""
    state = tokens.empty_state() if state is None else state
    outputs = []
    for t in range(tokens.q.shape[1]):
        token = tokens.map(lambda x, t=t: x[:, t])  # type: ignore[misc]
        o, state = advance(token, state, scale)
        outputs.append(o)
    return torch.stack(outputs, dim=1) if outputs else tokens.no_outputs(), state


def _read(state: Tensor, key: Tensor) -> Tensor:
    """`[B, H, K, V]` and `[B, H, K]` to `[B, H, V]`."""
    return (key[..., None, :] @ state)[..., 0, :]
