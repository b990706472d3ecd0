"""The recurrence token by token: the definition that every faster form is held to."""

from __future__ import annotations

import torch
from torch import Tensor

from .tokens import Tokens


def advance(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None, beta: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """One token: `q`, `k` `[B, H, K]`, `v` `[B, H, V]`, `state` `[B, H, K, V]`, `log_decay` `[B, H, 1 or K]`,
    `beta` `[B, H]`. Returns the output `[B, H, V]` and the state after the write."""
    if log_decay is not None:
        state = state * log_decay.exp()[..., None]
    if beta is not None:
        v = beta[..., None] * (v - _read(state, k))
    state = state + k[..., None] * v[..., None, :]
    return scale * _read(state, q), state


def recurrent(tokens: Tokens, state: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """All tokens one after another: outputs `[B, T, H, V]` and the last state `[B, H, K, V]`."""
    state = tokens.empty_state() if state is None else state
    outputs = []
    for t in range(tokens.q.shape[1]):
        token = tokens.map(lambda x, t=t: x[:, t])  # type: ignore[misc]
        o, state = advance(token.q, token.k, token.v, state, token.log_decay, token.beta, scale)
        outputs.append(o)
    return torch.stack(outputs, dim=1) if outputs else tokens.no_outputs(), state


def _read(state: Tensor, key: Tensor) -> Tensor:
    """`[B, H, K, V]` and `[B, H, K]` to `[B, H, V]`."""
    return (key[..., None, :] @ state)[..., 0, :]
