"""The start of RWKV-7's layers as its released code has it, by the layer's place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .gates import BoundedDecay
from .shifted import StaticShift
from .writes import RateWrite

if TYPE_CHECKING:
    from .layer import LinearMixer

_SHIFTS = (0.2, 0.7, 0.7, 0.2, 0.9, 0.9)
"""Powers of the mixtures that queries, keys, values, output gate, decay and rate read."""
_GAINS = (1.0, 0.1, 1.0)
"""Of the orthogonal maps to queries, keys and values."""


@torch.no_grad()
def start_as_published(mixer: LinearMixer) -> None:
    """Sets the weights of a layer of RWKV-7 (arXiv 2503.14456; the values of its code, as `flash-linear-attention` has
    them in ``fla/layers/rwkv7.py``), layer l of L, channel i of C, n = i / (C - 1), and z = u |u| with u from -1 to 1
    over the channels of a head:

    - mu = 1 - (i / D)^(p (1 - l / L)), p of each projection; decays w = -5.5 + 6 n^(1 + (l / (L - 1))^0.3) + 2.5 z;
    - rates a = -0.19 + 0.3 z + 0.4 (n - 1/2); xi = 0.71 - 0.1 (n - 1/2); alpha = 1.02; norms ((l + 1) / L)^0.7;
    - q and v orthogonal, k a tenth of it, low-rank maps 0 and a tenth of orthogonal, and the last projection 0.
    """
    shift, decay, write = mixer.shift, mixer.decay, mixer.write
    assert isinstance(shift, StaticShift)
    assert isinstance(decay, BoundedDecay)
    assert isinstance(write, RateWrite)
    index, depth, width = mixer.layer.index, max(mixer.layer.depth, 1), mixer.shape.d_model
    powers = torch.tensor(_SHIFTS)[:, None] * (1 - index / depth)
    shift.mu.copy_(1 - (torch.arange(width) / width) ** powers)
    along = torch.linspace(0, 1, mixer.heads * mixer.key_dim)
    zigzag = torch.linspace(-1, 1, mixer.key_dim).repeat(mixer.heads)
    zigzag = zigzag * zigzag.abs()
    decay.bias.copy_(-5.5 + 6 * along ** (1 + (index / max(depth - 1, 1)) ** 0.3) + 2.5 * zigzag)
    write.up.bias.copy_(-0.19 + 0.3 * zigzag + 0.4 * (along - 0.5))
    write.removed.copy_(0.71 - 0.1 * (along - 0.5))
    write.follows.fill_(1.02)
    if mixer.norm is not None and mixer.norm.weight is not None:
        mixer.norm.weight.fill_(((index + 1) / depth) ** 0.7)
    _start_maps(mixer, [decay.up, write.up, mixer.gate_up])


def _start_maps(mixer: LinearMixer, ups: list[nn.Linear | None]) -> None:
    parts = mixer.proj.weight.split(mixer.roles)
    for part, gain in zip(parts, _GAINS, strict=False):
        nn.init.orthogonal_(part, gain=gain)
    downs: list[Tensor] = [*parts[len(_GAINS) :]]
    if mixer.first_values is not None and mixer.first_values.down is not None:
        downs.append(mixer.first_values.down.weight)
        ups = [*ups, mixer.first_values.up]
    for down in downs:
        nn.init.zeros_(down)
    for up in ups:
        if up is not None:
            outer, inner = up.weight.shape
            nn.init.orthogonal_(up.weight, gain=0.1 * math.sqrt(max(inner / outer, 1)))
    nn.init.zeros_(mixer.out.weight)
