"""Activations and their slopes, in float32, by name."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), which overflows nowhere."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """The activation NAME ("none", "silu" or "sigmoid") of `x`."""
    if NAME == "silu":
        return x * sigmoid(x)
    elif NAME == "sigmoid":
        return sigmoid(x)
    else:
        return x


@triton.jit
def slope(x, NAME: tl.constexpr):
    """The derivative of the activation NAME at `x`."""
    share, rest = sigmoid(x), sigmoid(-x)
    if NAME == "silu":
        return share * (1.0 + x * rest)
    elif NAME == "sigmoid":
        return share * rest
    else:
        return x * 0.0 + 1.0


@triton.jit
def softplus(x):
    """log(1 + exp(x)) to the precision of float32 however small it is.

    log(1 + e) = 2 artanh(e / (2 + e)) for e = exp(-|x|) in (0, 1], whose series converges by at least 1/9 a term.
    """
    e = tl.exp(-tl.abs(x))
    z = e / (2.0 + e)
    s = z * z
    series = 1.0 / 15.0
    series = series * s + 1.0 / 13.0
    series = series * s + 1.0 / 11.0
    series = series * s + 1.0 / 9.0
    series = series * s + 1.0 / 7.0
    series = series * s + 1.0 / 5.0
    series = series * s + 1.0 / 3.0
    series = series * s + 1.0
    return tl.maximum(x, 0.0) + 2.0 * z * series
