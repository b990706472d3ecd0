"""The learning memory: weights that every token trains, mini-batch by mini-batch, and that every token reads.

All gradients of a mini-batch are taken at the weights that it starts with, so that the weights after each of its tokens
are sums of outer products, and need not be made to be read (the dual form, TTT, arXiv 2407.04620, section 2.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.host import readable
from archsearch.ops.impl import choose_impl

from .coefficients import Coefficients, coefficients
from .network import Inner, Weights, clipped, gradients, hidden

OP = "learning_memory"


@dataclass(frozen=True, kw_only=True)
class MemoryTokens:
    """q, k, v `[B, T, H, D]`; rate, and the logs of what is kept of weights and momentum `[B, T, H]`, None for no
    forgetting or no momentum. Of one token a sequence the same without T. Of one dtype, float32 or float64."""

    q: Tensor
    k: Tensor
    v: Tensor
    rate: Tensor
    log_keep: Tensor | None = None
    log_momentum: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> MemoryTokens:
        """Every tensor changed alike."""
        changed: dict[str, Any] = {name: change(x) for name, x in vars(self).items() if x is not None}
        return MemoryTokens(**changed)


@dataclass(frozen=True, kw_only=True)
class Held:
    """A network's weights in the middle of a mini-batch, `[B, H, I, O]` each: ``start``, at which its gradients are
    taken; ``now``, after the tokens so far; and the ``momentum``, None for none. At its beginning both are one."""

    start: Weights
    now: Weights
    momentum: Weights | None = None


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a network learns: ``inner``, what is around its matrices; tokens a ``mini_batch``; ``factors`` `[b]` on the
    update up to each of its tokens, None for 1; and ``clip``, the greatest norm of a token's gradient, 0 for any."""

    inner: Inner
    mini_batch: int
    factors: Tensor | None = None
    clip: float = 0.0

    def gradients(self, k: Tensor, v: Tensor, weights: Weights) -> tuple[Weights, Weights]:
        """Of keys and values `[..., b, D]` what each matrix is given `[..., b, I]`, and the errors `[..., b, O]` that
        it learns from."""
        inputs, errors = gradients(k, v, weights, self.inner)
        return inputs, clipped(inputs, errors, self.clip) if self.clip else errors


def learning_memory(
    tokens: MemoryTokens,
    held: Held,
    learning: Learning,
    lengths: Tensor | None = None,
    *,
    want_state: bool,
    impl: str = "auto",
) -> tuple[Tensor, Held]:
    """What each token reads after it was learnt `[B, T, H, D]`, and what is held then, unless it is not wanted.

    ``lengths`` `[B]`: tokens that each sequence has seen, by which mini-batches go on; None for none, at the start.
    ``impl`` is "auto", "chunkwise", or "reference", token by token. Raises `KernelUnavailableError`.
    """
    chosen = choose_impl(OP, impl, why="mini-batches in PyTorch")
    if tokens.q.numel() == 0:
        return tokens.q + 0 * (tokens.k + tokens.v), held
    if want_state and lengths is None:
        lengths = torch.zeros(len(tokens.q), dtype=torch.int64, device=tokens.q.device)
    if chosen == "reference":
        return _one_by_one(tokens, held, learning, lengths)
    places = _Places.of(tokens.q, learning.mini_batch, lengths)
    q, k, v = (places.lay(x) for x in (tokens.q, tokens.k, tokens.v))
    gates = (None if x is None else places.lay(x[..., None])[..., 0] for x in _gates(tokens))
    rate, log_keep, log_momentum = gates
    assert rate is not None
    factors = coefficients(rate, log_keep, log_momentum, places.real)
    outputs = []
    for index, parts in enumerate(zip(q, k, v, factors.unbind(), strict=True)):
        batch = _MiniBatch(*parts, learning)
        wrong = learning.gradients(batch.k, batch.v, held.start)
        outputs.append(batch.read(held, wrong))
        if want_state or index < len(q) - 1:
            held = batch.learnt(held, wrong, places.closes(index))
    return places.joined(torch.stack(outputs)), held


def learning_step(tokens: MemoryTokens, held: Held, learning: Learning, lengths: Tensor) -> tuple[Tensor, Held]:
    """One token, by the weights themselves: what it reads `[B, H, D]`, and what is held after it.

    ``lengths`` `[B]`: tokens that each sequence has seen before it.
    """
    q, k, v = (x[..., None, :] for x in (tokens.q, tokens.k, tokens.v))
    rate, log_keep, log_momentum = (None if x is None else x[..., None, None] for x in _gates(tokens))
    assert rate is not None
    inputs, errors = learning.gradients(k, v, held.start)
    pushes: Weights = tuple((rate * x).mT @ error for x, error in zip(inputs, errors, strict=True))
    moves: Weights = tuple(-push for push in pushes)
    if held.momentum is not None and log_momentum is not None:
        moves = tuple(log_momentum.exp() * old + move for old, move in zip(held.momentum, moves, strict=True))
    keep = None if log_keep is None else log_keep.exp()
    now: Weights = tuple((w if keep is None else keep * w) + move for w, move in zip(held.now, moves, strict=True))
    place = lengths % learning.mini_batch
    seen = now
    if learning.factors is not None:
        seen = _scaled(held.start, now, learning.factors[place][:, None, None, None])
    z = q
    for index, matrix in enumerate(seen):
        z = learning.inner.rows(hidden(z) if index else z) @ matrix
    closes = (place == learning.mini_batch - 1)[:, None, None, None]
    start = _where(closes, seen, held.start)
    now = now if learning.factors is None else _where(closes, seen, now)
    after = Held(start=start, now=now, momentum=None if log_momentum is None else moves)
    return learning.inner.given(q, z)[..., 0, :], after


@dataclass(frozen=True)
class _MiniBatch:
    """q, k, v `[B, H, b, D]` and coefficients of the b tokens of a mini-batch."""

    q: Tensor
    k: Tensor
    v: Tensor
    left: Coefficients
    learning: Learning

    def read(self, held: Held, wrong: tuple[Weights, Weights]) -> Tensor:
        """What the weights after each token give for its q, `[B, H, b, D]`."""
        z, left = self.q, self.left
        for index, (inputs, errors) in enumerate(zip(*wrong, strict=True)):
            rows = self.learning.inner.rows(hidden(z) if index else z)
            before = rows @ held.now[index]
            z = before if left.kept is None else left.kept * before
            if held.momentum is not None and left.carried is not None:
                z = z + left.carried * (rows @ held.momentum[index])
            z = z - ((rows @ inputs.mT) * left.written) @ errors
            if self.learning.factors is not None:
                first = before if held.now is held.start else rows @ held.start[index]
                z = first + self.learning.factors[:, None] * (z - first)
        return self.learning.inner.given(self.q, z)

    def learnt(self, held: Held, wrong: tuple[Weights, Weights], closes: Tensor | None) -> Held:
        """What is held after the last token; ``closes`` `[B]`: whose mini-batch ends with it, None for all."""
        left, learning = self.left, self.learning
        now, momentum = [], []
        for index, (inputs, errors) in enumerate(zip(*wrong, strict=True)):
            after = held.now[index] if left.kept is None else left.kept[..., -1:, :] * held.now[index]
            after = after - (inputs * left.written[..., -1:, :].mT).mT @ errors
            if left.pushed is not None:
                momentum.append((inputs * left.pushed).mT @ errors)
            if held.momentum is not None and left.carried is not None and left.coasted is not None:
                after = after + left.carried[..., -1:, :] * held.momentum[index]
                momentum[-1] = momentum[-1] + left.coasted * held.momentum[index]
            now.append(after)
        weights, speed = tuple(now), tuple(momentum) or None
        ended = weights
        if learning.factors is not None:
            ended = _scaled(held.start, weights, learning.factors[-1])
        if closes is None:
            return Held(start=ended, now=ended, momentum=speed)
        ends = closes[:, None, None, None]
        return Held(start=_where(ends, ended, held.start), now=_where(ends, ended, weights), momentum=speed)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where T tokens of each sequence stand in mini-batches of ``size``: from ``offset`` `[B]` on, or from 0 (None)."""

    size: int
    tokens: int
    batches: int
    offset: Tensor | None

    @classmethod
    def of(cls, x: Tensor, size: int, lengths: Tensor | None) -> _Places:
        tokens = x.shape[1]
        if lengths is None:
            return cls(size=size, tokens=tokens, batches=-(-tokens // size), offset=None)
        offset = lengths % size
        most = int(offset.max()) if readable(offset) else size - 1
        return cls(size=size, tokens=tokens, batches=-(-(most + tokens) // size), offset=offset)

    @property
    def columns(self) -> Tensor:
        """`[B, T]`."""
        assert self.offset is not None
        return self.offset[:, None] + torch.arange(self.tokens, device=self.offset.device)

    def lay(self, x: Tensor) -> Tensor:
        """`[B, T, H, X]` to `[J, B, H, b, X]`, zeros where there is no token."""
        width = self.batches * self.size
        if self.offset is None:
            wide = F.pad(x, (0, 0, 0, 0, 0, width - self.tokens)) if width > self.tokens else x
        else:
            rows = torch.arange(len(x), device=x.device)[:, None].expand(-1, self.tokens)
            wide = x.new_zeros(len(x), width, *x.shape[2:]).index_put((rows, self.columns), x)
        return torch.unflatten(wide, 1, (self.batches, self.size)).permute(1, 0, 3, 2, 4).contiguous()

    def joined(self, x: Tensor) -> Tensor:
        """`[J, B, H, b, X]` back to `[B, T, H, X]`."""
        wide = x.permute(1, 0, 3, 2, 4).flatten(1, 2)
        if self.offset is None:
            return wide[:, : self.tokens]
        return wide[torch.arange(len(wide), device=x.device)[:, None], self.columns]

    @property
    def real(self) -> Tensor | None:
        """The places that have a token, `[J, B, 1, b]`; None where those that have none are all behind."""
        if self.offset is None:
            return None
        places = torch.arange(self.batches * self.size, device=self.offset.device)
        there = (places >= self.offset[:, None]) & (places < self.offset[:, None] + self.tokens)
        return torch.unflatten(there, 1, (self.batches, self.size)).transpose(0, 1)[:, :, None]

    def closes(self, index: int) -> Tensor | None:
        """Whose tokens fill the mini-batch, `[B]`; None where all do."""
        if self.offset is None:
            return None
        return self.offset + self.tokens >= (index + 1) * self.size


def _one_by_one(tokens: MemoryTokens, held: Held, learning: Learning, lengths: Tensor | None) -> tuple[Tensor, Held]:
    if lengths is None:
        lengths = torch.zeros(len(tokens.q), dtype=torch.int64, device=tokens.q.device)
    outputs = []
    for t in range(tokens.q.shape[1]):
        one = tokens.map(lambda x, t=t: x[:, t])  # type: ignore[misc]
        o, held = learning_step(one, held, learning, lengths + t)
        outputs.append(o)
    return torch.stack(outputs, 1), held


def _gates(tokens: MemoryTokens) -> tuple[Tensor | None, ...]:
    return tokens.rate, tokens.log_keep, tokens.log_momentum


def _scaled(start: Weights, now: Weights, factor: Tensor) -> Weights:
    """Weights whose change since `start` is scaled."""
    return tuple(first + factor * (last - first) for first, last in zip(start, now, strict=True))


def _where(condition: Tensor, these: Weights, others: Weights) -> Weights:
    return tuple(torch.where(condition, one, other) for one, other in zip(these, others, strict=True))
