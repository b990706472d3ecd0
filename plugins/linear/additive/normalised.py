"""Normalised reads: what a query reads of values over what it reads of ones; with exponential writes or without."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.ops.padded import PaddedRows

from ..core import Call, Core, Tensors
from ..gates import capped
from ..tokens import Tokens

LEAST = 1e-15
"""What is divided by at least."""

_MOST = 80.0
"""exp of it is still a float32."""


class NormalisedCore(Core):
    """o = S^T q / (z . q) with z the sum of the keys (Katharopoulos et al., arXiv 2006.16236, equation 18): the state
    of values with a column of ones."""

    def forward(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`."""
        read, tensors = super().forward(_with_ones(tokens), call)
        return _quotient(read, read.new_tensor(LEAST)).to(tokens.v.dtype), tensors

    def step(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`."""
        read, tensors = super().step(_with_ones(tokens), call)
        return _quotient(read, read.new_tensor(LEAST)).to(tokens.v.dtype), tensors


class ExponentialCore(Core):
    """The mLSTM (xLSTM, arXiv 2405.04517, equations 19 to 27): writes scaled by exp(i), reads by max(|n . q|, 1).

    With the stabiliser m_t = max(log f_t + m_(t-1), i_t) it is the Hebbian rule of log decays log f_t + m_(t-1) - m_t,
    at most 0, and values scaled by exp(i_t - m_t), at most 1; 1 becomes exp(-m_t). What is read does not depend on m,
    which therefore has no gradient. With a ``cap`` gates have a bias, and are at most that in size.
    """

    def __init__(self, scale: float, *, heads: int = 0, cap: float = 0.0, start: float = 0.0) -> None:
        super().__init__(scale)
        self.cap = cap
        self.bias = nn.Parameter(torch.full((heads,), start)) if cap else None

    def gates(self, more: Tensor) -> Tensor:
        """Input gates i `[..., H]` of what the projection makes for them."""
        return more if self.bias is None else capped(more.float() + self.bias.float(), self.cap)

    def forward(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`; of ``more`` `[B, T, H]` the input gates i are made."""
        assert call.more is not None
        assert tokens.log_decay is not None
        rows = None if call.cu_seqlens is None else PaddedRows.of(call.cu_seqlens, tokens.q.shape[1])
        given = self.gates(call.more)
        gates = (tokens.log_decay.detach(), given.detach())
        forget, write = gates if rows is None else (rows.pad(x) for x in gates)
        before = None if call.state is None else call.state["stabilizer"][:, 0]
        passed, highest = _stabilisers(forget, write, before)
        last = highest[:, -1:] if highest.shape[1] or before is None else before[:, None].double()
        if rows is not None:
            passed, highest = rows.unpad(passed), rows.unpad(highest)
        read, tensors = super().forward(_stabilised(tokens, given, passed, highest), call)
        o = _quotient(read, _floor(highest).to(read.dtype))
        if call.state is not None:
            tensors["stabilizer"] = last.to(call.state["stabilizer"].dtype)
        return o.to(tokens.v.dtype), tensors

    def step(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`."""
        assert call.more is not None
        assert call.state is not None
        assert tokens.log_decay is not None
        before, given = call.state["stabilizer"][:, 0], self.gates(call.more)
        passed, highest = _stabilisers(tokens.log_decay[:, None].detach(), given[:, None].detach(), before)
        passed, highest = passed[:, 0], highest[:, 0]
        read, tensors = super().step(_stabilised(tokens, given, passed, highest), call)
        o = _quotient(read, _floor(highest).to(read.dtype))
        return o.to(tokens.v.dtype), tensors | {"stabilizer": highest[:, None].to(before.dtype)}


def _stabilisers(forget: Tensor, write: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """m_(t-1) - m_t and m_t, float64 `[B, T, H]`, of log forget and write gates `[B, T, H]`, m_0 `before` `[B, H]`, 0
    where there is none. The last m is a float32, as the state keeps it."""
    sums = F.pad(forget.double().cumsum(1), (0, 0, 1, 0))
    first = torch.zeros_like(sums[:, :1]) if before is None else before[:, None].double()
    highest = torch.cat((first, write.double() - sums[:, 1:]), dim=1).cummax(1).values + sums
    if highest.shape[1] > 1:
        highest = torch.cat((highest[:, :-1], _rounded_up(highest[:, -1:])), dim=1)
    return highest[:, :-1] - highest[:, 1:], highest[:, 1:]


def _rounded_up(x: Tensor) -> Tensor:
    """Float64 to the next float32, so that no decay exceeds 1."""
    near = x.float()
    return torch.where(near < x, torch.nextafter(near, torch.full_like(near, torch.inf)), near).double()


def _stabilised(tokens: Tokens, write: Tensor, passed: Tensor, highest: Tensor) -> Tokens:
    """Tokens whose values, and ones beside them, are scaled by their stabilised write gates."""
    q, k, v, log_decay, _ = tokens.flat
    assert log_decay is not None
    dtype = torch.promote_types(v.dtype, torch.float32)
    scale = (write.double() - highest).exp().to(dtype)[..., None]
    steps = (log_decay.double() + passed).clamp(max=0.0).to(dtype)
    return Tokens(q, k, torch.cat((v.to(dtype) * scale, scale), dim=-1), log_decay=steps)


def _with_ones(tokens: Tokens) -> Tokens:
    q, k, v, log_decay, _ = tokens.flat
    v = v.to(torch.promote_types(v.dtype, torch.float32))
    return Tokens(q, k, torch.cat((v, torch.ones_like(v[..., :1])), dim=-1), log_decay=log_decay)


def _floor(highest: Tensor) -> Tensor:
    """exp(-m) `[..., H, 1]`."""
    return (-highest).clamp(max=_MOST).exp()[..., None]


def _quotient(read: Tensor, least: Tensor) -> Tensor:
    """`[..., H, V + 1]` to `[..., H, V]`: the values read over the ones read, at least ``least`` in size."""
    return read[..., :-1] / torch.maximum(read[..., -1:].abs(), least)
