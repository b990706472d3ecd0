"""The start of RWKV-7's layers as its released code has it, by the layer's place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo

from .decays import Dims
from .gates import DecayGate
from .norms import HeadNorm
from .writes import DeltaWrite, RateWrite

_SHIFTS = (0.2, 0.7, 0.7, 0.2, 0.9, 0.9)
"""Powers of the mixtures that queries, keys, values, output gate, decay and rate read."""
_GAINS = (1.0, 0.1, 1.0)
"""Of the orthogonal maps to queries, keys and values."""


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What of a layer is started: the mixtures ``mu`` `[6, D]` of the token before; the decay, the write and the norm;
    weights of the ``maps`` to q, k and v and of the first low-rank maps; the second ones (``ups``); the last one."""

    mu: Tensor
    decay: DecayGate
    write: DeltaWrite
    norm: nn.RMSNorm | HeadNorm | None
    maps: Sequence[Tensor]
    ups: Sequence[nn.Linear]
    out: nn.Linear


@torch.no_grad()
def start_as_published(pieces: Pieces, dims: Dims, layer: LayerInfo) -> None:
    """Sets the weights of a layer of RWKV-7 (arXiv 2503.14456; the values of its code, as `flash-linear-attention` has
    them in ``fla/layers/rwkv7.py``), layer l of L, channel i of C, n = i / (C - 1), and z = u |u| with u from -1 to 1
    over the channels of a head:

    - mu = 1 - (i / D)^(p (1 - l / L)), p of each projection; decays w = -5.5 + 6 n^(1 + (l / (L - 1))^0.3) + 2.5 z;
    - rates a = -0.19 + 0.3 z + 0.4 (n - 1/2); xi = 0.71 - 0.1 (n - 1/2); alpha = 1.02; norms ((l + 1) / L)^0.7;
    - q and v orthogonal, k a tenth of it, low-rank maps 0 and a tenth of orthogonal, and the last projection 0.
    """
    write, width, depth = pieces.write, pieces.mu.shape[1], max(layer.depth, 1)
    assert isinstance(write, RateWrite)
    powers = torch.tensor(_SHIFTS)[:, None] * (1 - layer.index / depth)
    pieces.mu.copy_(1 - (torch.arange(width) / width) ** powers)
    along = torch.linspace(0, 1, dims.heads * dims.key_dim)
    zigzag = torch.linspace(-1, 1, dims.key_dim).repeat(dims.heads)
    zigzag = zigzag * zigzag.abs()
    late = layer.index / max(depth - 1, 1)
    pieces.decay.get_parameter("bias").copy_(-5.5 + 6 * along ** (1 + late**0.3) + 2.5 * zigzag)
    write.up.bias.copy_(-0.19 + 0.3 * zigzag + 0.4 * (along - 0.5))
    write.removed.copy_(0.71 - 0.1 * (along - 0.5))
    write.follows.fill_(1.02)
    if pieces.norm is not None and pieces.norm.weight is not None:
        pieces.norm.weight.fill_(((layer.index + 1) / depth) ** 0.7)
    _start_maps(pieces)


def _start_maps(pieces: Pieces) -> None:
    for weights, gain in zip(pieces.maps, _GAINS, strict=False):
        nn.init.orthogonal_(weights, gain=gain)
    for weights in (*pieces.maps[len(_GAINS) :], pieces.out.weight):
        nn.init.zeros_(weights)
    for up in pieces.ups:
        outer, inner = up.weight.shape
        nn.init.orthogonal_(up.weight, gain=0.1 * math.sqrt(max(inner / outer, 1)))
