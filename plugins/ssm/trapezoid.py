"""The trapezoidal recurrence of heads: what a token writes goes in half as it comes, half as the next one comes.

    h_t = exp(g_t) (h_(t-1) + l_t k_(t-1) v_(t-1)^T) + e_t k_t v_t^T        o_t = h_t^T q_t

(Mamba-3, arXiv 2603.15569, proposition 1: g = dt A, e = lambda dt, l = (1 - lambda) dt.) So a later token finds
k_s v_s^T with the weight e_s + l_(s+1), and the token itself with e_s alone: over chunks of tokens it is a linear
attention with one decay a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.impl import choose_impl

OP = "trapezoidal_recurrence"
CHUNK = 64
"""Tokens a chunk."""
_FORGOTTEN = -1e3
"""A log decay below which nothing is left."""
_SMALL = -80.0
"""A sum of them below which nothing counts as left: a CPU computes many times slower with numbers below e^-87."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """q, k `[B, T, H, N]` and v `[B, T, H, P]`; log_decay g, own e, and late l, the share of the token before,
    `[B, T, H]`. Of one token a sequence the same without T. Of one dtype, float32 or float64."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    own: Tensor
    late: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Written:
        """Every tensor changed alike."""
        changed: dict[str, Any] = {name: change(x) for name, x in vars(self).items()}
        return Written(**changed)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What goes on: the state h `[B, H, N, P]`, and k `[B, H, N]` and v `[B, H, P]` of the last token."""

    state: Tensor
    key: Tensor
    value: Tensor


def trapezoidal_recurrence(
    given: Written, kept: Kept | None, *, want_state: bool = True, impl: str = "auto"
) -> tuple[Tensor, Kept]:
    """o `[B, T, H, P]` after `kept`, and what is kept after all tokens, which means nothing unless it is wanted.

    What a token gets depends on no later token and no other sequence, to the last bit. ``impl`` is "auto", "chunkwise",
    or "reference", token by token. Raises `KernelUnavailableError`.
    """
    chosen = choose_impl(OP, impl, why="chunks in PyTorch")
    alone = kept is None and not want_state
    kept = _nothing(given) if kept is None else kept
    if given.v.numel() == 0:
        return given.v + 0 * (given.q.sum() + given.k.sum()), kept
    if chosen == "reference":
        outputs = []
        for t in range(given.q.shape[1]):
            o, kept = trapezoidal_step(given.map(lambda x, t=t: x[:, t]), kept)  # type: ignore[misc]
            outputs.append(o)
        return torch.stack(outputs, 1), kept
    return _in_chunks(given, kept, alone=alone)


def trapezoidal_step(given: Written, kept: Kept) -> tuple[Tensor, Kept]:
    """One token: o `[B, H, P]`, and what is kept after it."""
    decay, own, late = (x[..., None, None] for x in (given.log_decay.exp(), given.own, given.late))
    state = decay * (kept.state + late * kept.key[..., None] * kept.value[..., None, :])
    state = state + own * given.k[..., None] * given.v[..., None, :]
    return (given.q[..., None, :] @ state)[..., 0, :], Kept(state=state, key=given.k, value=given.v)


def _in_chunks(given: Written, kept: Kept, *, alone: bool) -> tuple[Tensor, Kept]:
    """``alone``: nothing was kept before, and nothing is after."""
    tokens = given.q.shape[1]
    size = min(CHUNK, tokens)
    later = given.own + F.pad(given.late[:, 1:], (0, 0, 0, 1))  # with which later tokens find this one
    q, k, v, logs, found = (
        _chunked(x, size) for x in (given.q, given.k, given.v, given.log_decay[..., None], given.k * later[..., None])
    )
    sums = logs.clamp(min=_FORGOTTEN).cumsum(-2, dtype=torch.float64)  # a small gate beside large ones
    o = ((q @ found.mT) * _decays(sums - sums.mT, q.dtype).tril(-1)) @ v
    o = o + (q * k).sum(-1, keepdim=True) * _chunked(given.own[..., None], size) * v
    last = kept.state
    if tokens > size or not alone:
        whole = sums[..., -1:, :]
        added = (found * _decays(whole - sums, q.dtype)).mT @ v
        states = [kept.state + given.late[:, 0, :, None, None] * kept.key[..., None] * kept.value[..., None, :]]
        for left, new in zip(_decays(whole, q.dtype).unbind(), added.unbind(), strict=True):
            states.append(left * states[-1] + new)
        last = states.pop()
        o = o + (q * _decays(sums, q.dtype)) @ torch.stack(states)
    o = o.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :tokens]
    return o, Kept(state=last, key=given.k[:, -1], value=given.v[:, -1])


def _decays(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return F.threshold(sums.to(dtype).clamp(max=0), _SMALL, -torch.inf).exp()


def _chunked(x: Tensor, size: int) -> Tensor:
    """`[B, T, H, X]` to `[J, B, H, L, X]`, zeros after the last token."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % size))
    return torch.unflatten(x, 1, (-1, size)).permute(1, 0, 3, 2, 4).contiguous()


def _nothing(given: Written) -> Kept:
    batch, _, heads, states = given.k.shape
    width = given.v.shape[-1]
    new = given.v.new_zeros
    return Kept(state=new(batch, heads, states, width), key=new(batch, heads, states), value=new(batch, heads, width))
