"""The filter of longconv: a function of time, made by a small network, under a window that decays."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longconv import Options

FAST, SLOW, FALLEN = 0.3, 1.5, 0.01
"""The windows of the fastest and of the slowest channel are `FALLEN` after these shares of ``reach``."""


class ImplicitFilter(nn.Module):
    """h_t = window(t) * network(features(t)), and ``skip`` more for the token itself (arXiv 2302.10866, equation 7).

    Computed in float32, or in the weights' own float64: a filter of rounded times is another filter.
    """

    def __init__(self, options: Options, channels: int) -> None:
        super().__init__()
        self.options, self.channels = options, channels
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(options.widths))
        self.last = nn.Linear(options.hidden, channels, bias=False)
        self.skip = nn.Parameter(torch.ones(channels))

    def forward(self, lags: int) -> Tensor:
        """The filter of the tokens 0 to lags - 1 back, `[lags, C]`."""
        dtype = torch.promote_types(self.skip.dtype, torch.float32)
        time = torch.arange(lags, device=self.skip.device, dtype=dtype)[:, None] / self.options.reach
        with torch.autocast(self.skip.device.type, enabled=False):
            found = self.features(time)
            for layer in self.hidden:
                found = torch.sin(self.options.frequency * _linear(layer, found))
            h = self.window(time) * _linear(self.last, found)
        return h + F.pad(self.skip.to(dtype)[None], (0, 0, 0, lags - 1)) if lags else h

    def features(self, time: Tensor) -> Tensor:
        """Time `[lags, 1]`, and its cosines and sines, `[lags, 1 + 2 bands]`."""
        bands = torch.arange(1, self.options.bands + 1, device=time.device, dtype=time.dtype)
        angles = 2 * math.pi * time * bands
        return torch.cat([time, angles.cos(), angles.sin()], dim=1)

    def window(self, time: Tensor) -> Tensor:
        """`[lags, C]`: the decay of each channel, whose rates are evenly spaced from the slowest to the fastest."""
        slowest, fastest = (-math.log(FALLEN) / share for share in (SLOW, FAST))
        rates = torch.linspace(slowest, fastest, self.channels, device=time.device, dtype=time.dtype)
        return torch.exp(-time * rates)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.weight.to(x.dtype), bias)


def convolved(u: Tensor, h: Tensor) -> Tensor:
    """y_t = sum over s <= t of h_(t-s) u_s by FFT: `u` `[B, T, C]`, `h` `[T, C]` to `[B, T, C]`."""
    tokens = u.shape[1]
    if u.numel() == 0:
        return u
    length = 2 * tokens  # room for the end of the filter, which else came round to the first tokens
    spectrum = torch.fft.rfft(u.to(h.dtype).mT, n=length) * torch.fft.rfft(h.mT, n=length)
    y: Tensor = torch.fft.irfft(spectrum, n=length)
    return y[..., :tokens].mT.to(u.dtype)


def newest(u: Tensor, h: Tensor, ends: Tensor) -> Tensor:
    """The last output alone: `u` `[B, S, C]` of which a sequence has ``ends`` `[B]` tokens and zeros after them, `h`
    `[S, C]`, to `[B, 1, C]`."""
    lags = ends[:, None] - 1 - torch.arange(u.shape[1], device=u.device)
    return (h[lags.clamp(min=0)] * u.to(h.dtype)).sum(1, keepdim=True).to(u.dtype)
