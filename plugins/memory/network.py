"""The network that a head's state is: what it gives, and the gradient of its loss, written out.

The loss of a key k and a value v is |f(k) - v|^2 / 2. The gradient in each matrix is the outer product of what the
matrix was given and the error at what it gave, so that both are all that has to be kept of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6

Weights = tuple[Tensor, ...]
"""Matrices `[..., I, O]` of a network, the first first; with a bias, it is the last row."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    """What is around the matrices: LayerNorm's ``scale`` and ``shift`` `[H, 1, D]`, or None for none; ``residual``: the
    input is added; ``bias``: inputs have a 1 behind them."""

    scale: Tensor | None
    shift: Tensor | None
    residual: bool
    bias: bool

    def rows(self, x: Tensor) -> Tensor:
        """Inputs `[..., I]` as the matrices take them."""
        return F.pad(x, (0, 1), value=1.0) if self.bias else x

    def given(self, x: Tensor, z: Tensor) -> Tensor:
        """f(x) of inputs x `[..., D]` of which the last matrix makes z `[..., D]`."""
        if self.scale is not None and self.shift is not None:
            z = F.layer_norm(z, z.shape[-1:], eps=EPS) * self.scale + self.shift
        return x + z if self.residual else z


def hidden(z: Tensor) -> Tensor:
    """What the second matrix is given of the first one's z."""
    return F.gelu(z, approximate="tanh")


def gradients(k: Tensor, v: Tensor, weights: Weights, inner: Inner) -> tuple[Weights, Weights]:
    """Of keys and values `[..., b, D]` what each matrix is given `[..., b, I]`, and the errors `[..., b, O]`."""
    inputs, outputs = [inner.rows(k)], [inner.rows(k) @ weights[0]]
    for matrix in weights[1:]:
        inputs.append(inner.rows(hidden(outputs[-1])))
        outputs.append(inputs[-1] @ matrix)
    errors = [_error(k, v, outputs[-1], inner)]
    for matrix, z in zip(weights[:0:-1], outputs[-2::-1], strict=True):
        above = errors[-1] @ (matrix[..., :-1, :] if inner.bias else matrix).mT
        errors.append(torch.ops.aten.gelu_backward(above, z, approximate="tanh"))
    return tuple(inputs), tuple(reversed(errors))


def clipped(inputs: Weights, errors: Weights, most: float) -> Weights:
    """The errors `[..., b, O]` of each token, scaled so that its gradient in all matrices together, of which it has the
    outer products with `inputs` `[..., b, I]`, has a norm of `most` at most (arXiv 1211.5063, section 3.2)."""
    squares = [
        x.square().sum(-1, keepdim=True) * error.square().sum(-1, keepdim=True)
        for x, error in zip(inputs, errors, strict=True)
    ]
    scale = most * torch.stack(squares).sum(0).clamp(min=most**2).rsqrt()
    return tuple(error * scale for error in errors)


def _error(k: Tensor, v: Tensor, z: Tensor, inner: Inner) -> Tensor:
    """The gradient of the loss in z, through LayerNorm where there is one."""
    target = v - k if inner.residual else v
    if inner.scale is None or inner.shift is None:
        return z - target
    centred = z - z.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + EPS).rsqrt()
    normed = centred * inverse
    above = (torch.addcmul(inner.shift, normed, inner.scale) - target) * inner.scale
    along = (above * normed).mean(-1, keepdim=True)
    return (above - above.mean(-1, keepdim=True) - normed * along) * inverse
