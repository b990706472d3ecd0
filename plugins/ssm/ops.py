"""The selective scan: a recurrence of its own for each channel, over chunks of tokens side by side.

    h_t = exp(dt_t a) h_(t-1) + dt_t u_t b_t        y_t = c_t h_t

(Mamba, arXiv 2312.00752, equations 2 and 3 with section 3.2.) A chunk is gone through twice, every chunk of a sequence
at once: the first time from nothing, for what it adds to the state; then one pass over chunks gives the state that each
begins with; the second time from there. Decays are only ever multiplied, never divided by, so that nothing overflows.
The backward pass goes the same way from the end, and computes the states again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from archsearch.ops.host import readable
from archsearch.ops.impl import choose_impl

OP = "selective_scan"

_CACHED = 1 << 19
"""Numbers of all states that are worked on together on a CPU, and on a card."""
_HELD = 1 << 27

_FORGOTTEN = -80.0
"""A log decay below which nothing counts as left: a CPU computes many times slower with numbers below e^-87."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """What the scan is asked of tokens: inputs u and steps dt >= 0 `[B, T, C]`, b and c `[B, T, N]`, and the channels'
    rates a < 0 `[N, C]`, of one floating dtype. Of one token a sequence the same without T."""

    u: Tensor
    dt: Tensor
    b: Tensor
    c: Tensor
    rate: Tensor

    @property
    def tokens(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All but the rates."""
        return self.u, self.dt, self.b, self.c


def scan_step(given: Selected, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: y `[B, C]` and the state `[B, N, C]` after it."""
    decay = (given.dt[:, None] * given.rate).exp()
    state = decay * state + given.b[..., None] * (given.dt * given.u)[:, None]
    return (given.c[:, None] @ state)[:, 0], state


def selective_scan(
    given: Selected, state: Tensor, first: Tensor | None = None, *, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """y `[B, T, C]` of all tokens after `state` `[B, N, C]`, and the state after them.

    ``first`` `[B, T]` bool: tokens before which nothing is left, as packed sequences begin. What a token gets depends
    on no later token and no other sequence, to the last bit. ``impl`` is "auto", "chunkwise", or "reference", token by
    token. Raises `KernelUnavailableError`.
    """
    u = given.u
    chosen = choose_impl(OP, impl, why="chunks in PyTorch")
    if u.shape[1] == 0 or u.shape[0] == 0:
        return u + 0 * given.dt, state
    if chosen == "reference":
        return _recurrent(given, state, first)
    cells, tokens = given.rate.numel(), u.shape[1]
    held = _CACHED if u.device.type == "cpu" else _HELD
    span = min(tokens, max(64, held // cells))
    rows = max(1, held // (cells * span))
    parts = [*given.tokens, state, *(() if first is None else (first[..., None],))]
    results = [_spans(some, given.rate, span) for some in zip(*(x.split(rows) for x in parts), strict=True)]
    outputs, lasts = zip(*results, strict=True)
    return torch.cat(outputs), torch.cat(lasts)


def _recurrent(given: Selected, state: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(given.u.shape[1]):
        if first is not None:
            state = state.masked_fill(first[:, t, None, None], 0.0)
        u, dt, b, c = (x[:, t] for x in given.tokens)
        y, state = scan_step(Selected(u=u, dt=dt, b=b, c=c, rate=given.rate), state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def _spans(some: tuple[Tensor, ...], rate: Tensor, span: int) -> tuple[Tensor, Tensor]:
    """Some sequences, in spans of so many tokens, one after the other."""
    u, dt, b, c, state, *first = some
    outputs = []
    for parts in zip(*(part.split(span, 1) for part in (u, dt, b, c, *first)), strict=True):
        begins = parts[4] if first else None
        y, state = _Scan.apply(*parts[:4], rate, state, begins)  # type: ignore[no-untyped-call]
        outputs.append(y)
    return torch.cat(outputs, 1), state


def chunk_length(tokens: int) -> int:
    """Tokens a chunk: a power of two near the root of all, which makes both passes short."""
    return 1 << tokens.bit_length() // 2


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """Tokens as chunks, `[L, B, M, ...]` for token l of chunk m, with an axis for N in front of the channels, or after
    N for b and c; those after the last token have a step of 0, which leaves the state alone."""

    u: Tensor
    dt: Tensor
    b: Tensor
    c: Tensor
    first: Tensor | None

    @classmethod
    def of(cls, u: Tensor, dt: Tensor, b: Tensor, c: Tensor, first: Tensor | None) -> _Chunks:
        u, dt = (_chunked(x)[..., None, :] for x in (u, dt))
        b, c = (_chunked(x)[..., None] for x in (b, c))
        return cls(u=u, dt=dt, b=b, c=c, first=None if first is None else _chunked(first)[..., None])

    def decays(self, rate: Tensor) -> Tensor:
        """exp(dt a) `[L, B, M, N, C]`."""
        logs = self.dt * rate
        if not readable(logs) or _deepest(self.dt, rate) < _FORGOTTEN:
            logs = F.threshold(logs, _FORGOTTEN, -torch.inf)
        decay = logs.exp_()
        return decay if self.first is None else decay.masked_fill_(self.first, 0.0)

    def written(self) -> Tensor:
        """dt u b `[L, B, M, N, C]`."""
        return (self.dt * self.u) * self.b


class _Scan(torch.autograd.Function):
    """`selective_scan` of tokens that fit the memory at once, with the states computed again in its backward."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor, first: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        chunks = _Chunks.of(u, dt, b, c, first)
        decay, held = chunks.decays(rate), chunks.written()
        whole, starts = _carried(decay, held, state)
        _scan_(decay, held, starts)
        kept = (decay, held) if u.device.type == "cpu" else (None, None)
        ctx.save_for_backward(u, dt, b, c, rate, first, whole, starts, *kept)
        y = (chunks.c.mT @ held)[..., 0, :]
        return _joined(y, u.shape[1]), held[-1, :, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, b, c, rate, first, whole, starts, decay, held = ctx.saved_tensors
        tokens, chunks, d_out = u.shape[1], _Chunks.of(u, dt, b, c, first), _chunked(d_y)[..., None, :]
        if decay is None:
            decay, held = chunks.decays(rate), chunks.written()
            _scan_(decay, held, starts)
        d_c = _joined((held @ d_out.mT)[..., 0], tokens)
        d_held = chunks.c * d_out
        d_state = _scan_back_(decay, d_held, whole, d_last)
        d_input = (chunks.b.mT @ d_held)[..., 0, :]
        d_b = _joined((d_held @ (chunks.dt * chunks.u).mT)[..., 0], tokens)
        d_logs = d_held.mul_(decay)  # of dt a, times the state before
        d_logs[0].mul_(starts)
        d_logs[1:].mul_(held[:-1])
        d_rate = _summed(d_logs, chunks.dt)
        d_dt = d_logs.mul_(rate).sum(-2).addcmul_(d_input, chunks.u[..., 0, :])
        d_u = d_input.mul_(chunks.dt[..., 0, :])
        return _joined(d_u, tokens), _joined(d_dt, tokens), d_b, d_c, d_rate, d_state, None


def _carried(decay: Tensor, written: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """What each chunk leaves of the state before it, and the state that it begins with, both `[B, M, N, C]`."""
    whole, added = decay[0].clone(), written[0].clone()
    for here, new in zip(decay[1:].unbind(), written[1:].unbind(), strict=True):
        torch.addcmul(new, here, added, out=added)
        whole.mul_(here)
    begun = [state]
    for left, new in zip(whole.unbind(1)[:-1], added.unbind(1)[:-1], strict=True):
        begun.append(torch.addcmul(new, left, begun[-1]))
    return whole, torch.stack(begun, 1)


def _scan_(decay: Tensor, held: Tensor, starts: Tensor) -> None:
    """Turns what is written into the states, in place."""
    before = starts
    for here, state in zip(decay.unbind(), held.unbind(), strict=True):
        before = state.addcmul_(here, before)


def _scan_back_(decay: Tensor, d_held: Tensor, whole: Tensor, d_last: Tensor) -> Tensor:
    """Turns the gradients of single states into those with all later ones, in place; that of the first state."""
    reached = d_held[-1].clone()
    for index in range(len(d_held) - 2, -1, -1):
        torch.addcmul(d_held[index], decay[index + 1], reached, out=reached)
    reached.mul_(decay[0])
    ends = [d_last]
    for own, left in zip(reached.unbind(1)[::-1], whole.unbind(1)[::-1], strict=True):
        ends.append(torch.addcmul(own, left, ends[-1]))
    d_state = ends.pop()
    d_held[-1] += torch.stack(ends[::-1], 1)
    for index in range(len(d_held) - 2, -1, -1):
        d_held[index].addcmul_(decay[index + 1], d_held[index + 1])
    return d_state


def _summed(x: Tensor, weight: Tensor) -> Tensor:
    """The sum over tokens of x `[L, B, M, N, C]` times weight `[L, B, M, 1, C]`, `[N, C]`."""
    total = x[0] * weight[0]
    for part, by in zip(x[1:].unbind(), weight[1:].unbind(), strict=True):
        total.addcmul_(part, by)
    summed: Tensor = total.sum((0, 1))
    return summed


def _chunked(x: Tensor) -> Tensor:
    """`[B, T, X]` to `[L, B, M, X]`."""
    size = chunk_length(x.shape[1])
    short = -x.shape[1] % size
    x = F.pad(x, (0, 0, 0, short)) if short else x
    return torch.unflatten(x, 1, (-1, size)).permute(2, 0, 1, 3).contiguous()


def _joined(x: Tensor, tokens: int) -> Tensor:
    """`[L, B, M, X]` to `[B, T, X]`."""
    laid: Tensor = torch.flatten(x.permute(1, 2, 0, 3), 1, 2)[:, :tokens]
    return laid


def _deepest(dt: Tensor, rate: Tensor) -> float:
    return float(dt.max() * rate.min())
