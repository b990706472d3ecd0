"""Rotary position embedding, whole or of the leading part of a head (RoFormer, arXiv 2104.09864, equation 34)."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor, nn

from archsearch.attention_cost import rotary_dim
from archsearch.rotation import Rotation


class Rotary(nn.Module):
    """Turns pairs of channels (2i, 2i + 1) of the first R channels of a head by ``position * base^(-2i/R)``.

    R is `fraction` of ``head_dim``, rounded down to an even number; the other channels carry no position. ``learned``:
    frequency i is that times exp(``alpha[i]``), alpha `[R/2]` learned from 0 on (Mistral-Large-4, as `transformers`
    5.24 has it). With a ``factor`` above 1 they are `stretched` for so many times the ``trained`` positions.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        fraction: float = 1.0,
        base: float = 10000.0,
        learned: bool = False,
        factor: float = 1.0,
        trained: int = 0,
    ) -> None:
        super().__init__()
        self.turned = rotary_dim(fraction, head_dim)
        self.base, self.factor, self.trained = base, factor, trained
        self.alpha = nn.Parameter(torch.zeros(self.turned // 2)) if learned and self.turned else None

    def forward(self, positions: Tensor, heads: Tensor, *, back: bool = False) -> Tensor:
        """`heads` `[B, T, H, D]`, each token turned by its place in `positions` `[B, T]` int64, or turned ``back``."""
        if not self.turned:
            return heads
        dtype = torch.complex128 if heads.dtype == torch.float64 else torch.complex64
        if self.alpha is not None or torch.compiler.is_compiling():
            turns = self.turns(positions).to(dtype)
        else:
            turns = _kept.turns(self, positions, dtype)
        turns = turns.conj() if back else turns
        if self.turned == heads.shape[-1]:
            return _turn(heads, turns)
        part, rest = torch.split(heads, [self.turned, heads.shape[-1] - self.turned], dim=-1)
        return torch.cat((_turn(part.contiguous(), turns), rest), dim=-1)

    def turns(self, positions: Tensor) -> Tensor:
        """Unit complex numbers `[B or 1, T, 1, R/2]`; in float32 the angle would be off by 0.05 rad at 1M tokens."""
        if positions.stride(0) == 0:
            positions = positions[:1]
        exponents = torch.arange(0, self.turned, 2, device=positions.device, dtype=torch.float64) / self.turned
        frequencies = self.base**-exponents
        if self.factor > 1:
            frequencies = stretched(frequencies, self.base, self.factor, self.trained)
        if self.alpha is not None:
            frequencies = frequencies * self.alpha.to(frequencies.dtype).exp()
        angles = positions[..., None, None] * frequencies
        return torch.polar(torch.ones_like(angles), angles)


def rotary_of(width: int, options: Rotation, *, fraction: float | None = None, learned: bool = False) -> Rotary:
    """What turns rows of that width as `options` say; ``fraction``: the share of their channels, `options.rope` unless
    given."""
    return Rotary(
        width,
        fraction=options.rope if fraction is None else fraction,
        base=options.rope_base,
        factor=options.rope_factor,
        trained=options.rope_trained,
        learned=learned,
    )


def stretched(frequencies: Tensor, base: float, factor: float, trained: int) -> Tensor:
    """Frequencies `[R/2]` of a rotation of that `base`, for `factor` times the `trained` positions: those that turn
    once in these or less are divided by the factor, those that turn 32 times or more stay, and between them is a ramp.

    YaRN (arXiv 2309.00071, section 3.2), the ends of the ramp at whole channels as its authors' code has them, without
    its scaling of attention.
    """
    count = len(frequencies)

    def channel(turns: float) -> float:
        return count * math.log(trained / (turns * 2 * math.pi)) / math.log(base)

    low, high = max(math.floor(channel(32)), 0), min(math.ceil(channel(1)), 2 * count - 1)
    index = torch.arange(count, device=frequencies.device, dtype=frequencies.dtype)
    ramp = ((index - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    return frequencies * (ramp / factor + 1 - ramp)


class _Kept(threading.local):
    """The turns of one tensor of positions, which the layers of a pass share, so that they are computed once."""

    positions: Tensor | None = None
    version = 0
    known: dict[tuple[int, float, float, int, torch.dtype], Tensor]

    def turns(self, rotary: Rotary, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Of a CPU alone: what a replayed CUDA graph writes into positions goes unseen."""
        if positions.device.type != "cpu" or torch.is_inference_mode_enabled():
            return rotary.turns(positions).to(dtype)
        if positions is not self.positions or positions._version != self.version:
            self.positions, self.version, self.known = positions, positions._version, {}
        key = (rotary.turned, rotary.base, rotary.factor, rotary.trained, dtype)
        if key not in self.known:
            self.known[key] = rotary.turns(positions).to(dtype)
        return self.known[key]


_kept = _Kept()


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    # one complex product: on a CPU several times faster than the four real ones that it stands for
    wide = _paired(x.to(torch.promote_types(x.dtype, torch.float32)))
    pairs = torch.view_as_complex(torch.unflatten(wide, -1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def _paired(x: Tensor) -> Tensor:
    """`x` so that its pairs of channels can be seen as complex numbers: itself, unless it is a slice that cuts through
    one. Inside `torch.compile`, where a tensor does not tell where it begins, whatever is no whole tensor is copied."""
    if torch.compiler.is_compiling():
        return x.contiguous()
    cut = x.stride(-1) != 1 or x.storage_offset() % 2 or any(stride % 2 for stride in x.stride()[:-1])
    return x.contiguous() if cut else x
