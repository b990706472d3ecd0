"""The trapezoidal recurrence of heads: what a token writes goes in half as it comes, half as the next one comes.

    h_t = exp(g_t) (h_(t-1) + l_t W_(t-1)) + e_t W_t,   W_t = sum_r k_tr v_tr^T        o_tr = h_t^T q_tr

(Mamba-3, arXiv 2603.15569, proposition 1: g = dt A, e = lambda dt, l = (1 - lambda) dt; several r, section 3.3.) So a
later token finds W_s with the weight e_s + l_(s+1), and the token itself with e_s alone: over chunks of tokens it is a
linear attention with one decay a head, of R rows a token.
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
    """q, k `[B, T, H, R, N]` and v `[B, T, H, R, P]` of R inputs and outputs; log_decay g, own e, and late l, the share
    of the token before, `[B, T, H]`. Of one token a sequence the same without T. Of one dtype, float32 or float64."""

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
    """What goes on: the state h `[B, H, N, P]`, and k `[B, H, R, N]` and v `[B, H, R, P]` of the last token."""

    state: Tensor
    key: Tensor
    value: Tensor


def trapezoidal_recurrence(
    given: Written, kept: Kept | None, *, want_state: bool = True, impl: str = "auto"
) -> tuple[Tensor, Kept]:
    """o `[B, T, H, R, P]` after `kept`, and what is kept after all tokens, which means nothing unless it is wanted.

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
    """One token: o `[B, H, R, P]`, and what is kept after it."""
    decay, own, late = (x[..., None, None] for x in (given.log_decay.exp(), given.own, given.late))
    state = decay * (kept.state + late * _outer(kept.key, kept.value)) + own * _outer(given.k, given.v)
    return given.q @ state, Kept(state=state, key=given.k, value=given.v)


def _outer(k: Tensor, v: Tensor) -> Tensor:
    """sum_r k_r v_r^T, `[..., N, P]`."""
    return k.mT @ v if k.shape[-2] > 1 else k.mT * v


def _in_chunks(given: Written, kept: Kept, *, alone: bool) -> tuple[Tensor, Kept]:
    """``alone``: nothing was kept before, and nothing is after."""
    tokens, rank = given.q.shape[1], given.q.shape[3]
    size = min(CHUNK, tokens)
    later = given.own + F.pad(given.late[:, 1:], (0, 0, 0, 1))  # with which later tokens find this one
    logs, own, later = (_chunked(x[..., None, None], size) for x in (given.log_decay, given.own, later))
    q, k, v = (_chunked(x, size) for x in (given.q, given.k, given.v))
    sums = logs[..., 0].clamp(min=_FORGOTTEN).cumsum(-2, dtype=torch.float64)  # a small gate beside large ones
    o = _of_themselves(q, k, own * v)
    found, rows, values = k * later, q.flatten(-3, -2), v.flatten(-3, -2)
    decays = _decays(sums - sums.mT, q.dtype).tril(-1)
    scores = torch.unflatten(rows @ found.flatten(-3, -2).mT, -1, (size, rank)).unflatten(-3, (size, rank))
    o = o + ((scores * decays[..., :, None, :, None]).flatten(-2).flatten(-3, -2) @ values).unflatten(-2, (size, rank))
    last = kept.state
    if tokens > size or not alone:
        whole = sums[..., -1:, :]
        added = (found * _decays(whole - sums, q.dtype)[..., None]).flatten(-3, -2).mT @ values
        states = [kept.state + given.late[:, 0, :, None, None] * _outer(kept.key, kept.value)]
        for left, new in zip(_decays(whole, q.dtype).unbind(), added.unbind(), strict=True):
            states.append(left * states[-1] + new)
        last = states.pop()
        read = (q * _decays(sums, q.dtype)[..., None]).flatten(-3, -2) @ torch.stack(states)
        o = o + read.unflatten(-2, (size, rank))
    o = o.permute(1, 0, 3, 2, 4, 5).flatten(1, 2)[:, :tokens]
    return o, Kept(state=last, key=given.k[:, -1], value=given.v[:, -1])


def _of_themselves(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What tokens `[..., R, N]` read of their own writes of v `[..., R, P]`."""
    return (q @ k.mT) @ v if q.shape[-2] > 1 else (q * k).sum(-1, keepdim=True) * v


def _decays(sums: Tensor, dtype: torch.dtype) -> Tensor:
    return F.threshold(sums.to(dtype).clamp(max=0), _SMALL, -torch.inf).exp()


def _chunked(x: Tensor, size: int) -> Tensor:
    """`[B, T, H, R, X]` to `[J, B, H, L, R, X]`, zeros after the last token."""
    x = F.pad(x, (0, 0) * 3 + (0, -x.shape[1] % size))
    return torch.unflatten(x, 1, (-1, size)).permute(1, 0, 3, 2, 4, 5).contiguous()


def _nothing(given: Written) -> Kept:
    batch, _, heads, rank, states = given.k.shape
    width = given.v.shape[-1]
    new = given.v.new_zeros
    return Kept(
        state=new(batch, heads, states, width),
        key=new(batch, heads, rank, states),
        value=new(batch, heads, rank, width),
    )
