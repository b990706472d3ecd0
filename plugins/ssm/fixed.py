"""The fixed recurrence: one kernel for each channel, as products over chunks of tokens and one pass over chunks.

    h_t = exp(dt a) h_(t-1) + u_t        y_t = 2 Re(sum_n c_n h_tn),  c = C (exp(dt a) - 1) / a

(S4D, arXiv 2206.11893, section 3: zero-order hold with B = 1, which is in c here.) Where a is real, without the 2 Re.
Within a chunk y is a Toeplitz matrix of the kernel K_l = 2 Re(sum_n c_n exp(dt a_n l)) times u; a state enters by c
times powers of the decays, and leaves by powers. Powers are taken in float64, where an angle of 600 keeps its digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.ops.bounds import LOG_RATE_MOST, STEP_MOST
from archsearch.ops.impl import choose_impl

OP = "fixed_recurrence"
CHUNK = 64
"""Tokens a chunk."""

_LEAST_LOG_RATE = -20.0


@dataclass(frozen=True, kw_only=True)
class Modes:
    """Parameters of C channels: log_dt `[C]`; log_rate `[C, M]`, a = -exp(log_rate); the imaginary part of a, angle
    `[C, M]`, or None for real states; and read `[C, M]`, or `[C, M, 2]` for real and imaginary parts."""

    log_dt: Tensor
    log_rate: Tensor
    angle: Tensor | None
    read: Tensor

    def discrete(self) -> tuple[Tensor, Tensor]:
        """Logs of the decays, and c, both `[C, M]`, complex128 or float64."""
        dt = self.log_dt.double().clamp(max=math.log(STEP_MOST)).exp()[:, None]
        rate = -self.log_rate.double().clamp(_LEAST_LOG_RATE, LOG_RATE_MOST).exp()
        if self.angle is None:
            return dt * rate, self.read.double() * torch.expm1(dt * rate) / rate
        whole = torch.complex(rate, self.angle.double())
        log_decay = dt * whole
        grown = (log_decay.exp() - 1) / whole
        return log_decay, torch.view_as_complex(self.read.double().contiguous()) * grown


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What chunks of L tokens are multiplied by: within `[C, L, L]`, lower triangular; write `[C, N, L]` and read
    `[C, L, N]` between tokens and states; and left, the decays of a whole chunk `[C, M]`."""

    within: Tensor
    write: Tensor
    read: Tensor
    left: Tensor


def kernel_of(modes: Modes, length: int, dtype: torch.dtype) -> Kernel:
    """The kernel for chunks of so many tokens."""
    log_decay, weight = modes.discrete()
    lags = torch.arange(length + 1, device=log_decay.device)
    powers = (log_decay[..., None] * lags).exp()  # [C, M, L + 1]
    weighted = weight[..., None] * powers
    taps = _taken(weighted[..., :-1]).sum(1).to(dtype)
    order = lags[:-1]
    lag = order[:, None] - order
    within = torch.where(lag >= 0, taps[:, lag.clamp(min=0)], 0.0)
    read, write = weighted[..., 1:], powers[..., :-1].flip(-1)
    if weight.is_complex():
        read, write = torch.cat((2 * read.real, -2 * read.imag), 1), torch.cat((write.real, write.imag), 1)
    return Kernel(within=within, write=write.to(dtype), read=read.mT.to(dtype), left=powers[..., -1])


def fixed_recurrence(
    u: Tensor, state: Tensor | None, modes: Modes, *, want_state: bool, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """y `[B, T, C]` of u `[B, T, C]` after `state` `[B, N, C]`, and the state after it, which means nothing unless it
    is wanted. In the dtype of u, float32 or float64.

    ``impl`` is "auto", "chunkwise", or "reference", token by token. Raises `KernelUnavailableError`.
    """
    chosen = choose_impl(OP, impl, why="chunks in PyTorch")
    if u.shape[0] == 0 or u.shape[1] == 0:
        return u, u if state is None else state
    if chosen == "reference":
        return _recurrent(u, state, modes)
    return _in_chunks(u, state, modes, want_state)


def _recurrent(u: Tensor, state: Tensor | None, modes: Modes) -> tuple[Tensor, Tensor]:
    states = modes.log_rate.shape[1] * (1 if modes.angle is None else 2)
    state = u.new_zeros(len(u), states, u.shape[2]) if state is None else state
    outputs = []
    for u_t in u.unbind(1):
        y, state = fixed_step(u_t, state, modes)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def _in_chunks(u: Tensor, state: Tensor | None, modes: Modes, want_state: bool) -> tuple[Tensor, Tensor]:
    batch, tokens, _ = u.shape
    size = min(CHUNK, 1 << (tokens - 1).bit_length())
    kernel, tail = kernel_of(modes, size, u.dtype), (tokens - 1) % size + 1
    x = F.pad(u, (0, 0, 0, size - tail)).unflatten(1, (-1, size)).permute(3, 2, 1, 0).flatten(2)  # [C, L, M B]
    y, last = kernel.within @ x, u
    if state is not None or want_state or tokens > size:
        added = torch.unflatten(kernel.write @ x, 2, (-1, batch))  # [C, N, M, B]
        begun, last = _begun(added, state, kernel.left)
        y = y + kernel.read @ begun.flatten(2)
        if want_state:
            last = _last(modes, u[:, tokens - tail :], last)
    y = torch.unflatten(y, 2, (-1, batch)).permute(3, 2, 1, 0).flatten(1, 2)
    return y[:, :tokens], last


def fixed_step(u: Tensor, state: Tensor, modes: Modes) -> tuple[Tensor, Tensor]:
    """One token `[B, C]` after `state` `[B, N, C]`: y `[B, C]` and the state after it."""
    log_decay, weight = modes.discrete()
    held = _decayed(state.transpose(1, 2)[..., None], log_decay.exp())[..., 0]
    modes_held = log_decay.shape[-1]
    after = torch.cat((held[..., :modes_held] + u[..., None], held[..., modes_held:]), -1)
    read = torch.cat((2 * weight.real, -2 * weight.imag), -1) if weight.is_complex() else weight
    y = (after[..., None, :] @ read.to(u.dtype)[..., None])[..., 0, 0]
    return y, after.transpose(1, 2)


def _taken(x: Tensor) -> Tensor:
    return 2 * x.real if x.is_complex() else x


def _decayed(held: Tensor, left: Tensor) -> Tensor:
    """States `[..., C, N, X]` times decays `[C, M]`."""
    if not left.is_complex():
        return held * left[..., None].to(held.dtype)
    a, b = left.real[..., None].to(held.dtype), left.imag[..., None].to(held.dtype)
    real, imaginary = held.chunk(2, -2)
    return torch.cat((a * real - b * imaginary, b * real + a * imaginary), -2)


def _begun(added: Tensor, state: Tensor | None, left: Tensor) -> tuple[Tensor, Tensor]:
    """The state that each chunk begins with `[C, N, M, B]`, of what each adds, and that of the last `[C, N, B]`."""
    parts = added.unbind(2)
    begun = [torch.zeros_like(parts[0]) if state is None else state.permute(2, 1, 0).to(added.dtype)]
    for new in parts[:-1]:
        begun.append(_decayed(begun[-1], left) + new)
    return torch.stack(begun, 2), begun[-1]


def _last(modes: Modes, u: Tensor, before: Tensor) -> Tensor:
    """The state `[B, N, C]` after the last chunk, which has fewer tokens than others may have."""
    log_decay, _ = modes.discrete()
    count = u.shape[1]
    lags = torch.arange(count - 1, -1, -1, device=u.device)
    powers = (log_decay[..., None] * lags).exp()
    write = torch.cat((powers.real, powers.imag), 1) if powers.is_complex() else powers
    after = _decayed(before, (log_decay * count).exp()) + write.to(u.dtype) @ u.permute(2, 1, 0)
    return after.permute(2, 1, 0)
