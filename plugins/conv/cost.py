"""Costs and state of the gated short convolution."""

from __future__ import annotations

from archsearch.mixer import Flops, ModelShape, StateTensor, Traffic

from .options import ConvOptions


def conv_params(options: ConvOptions, shape: ModelShape) -> int:
    """Two gates, input and output, each a square of the model's width, and a weight for each tap and channel."""
    return 4 * shape.d_model**2 + options.width * shape.d_model


def conv_flops(options: ConvOptions, shape: ModelShape) -> Flops:
    """Operations of one token: four projections, two gates, and 2 for each tap and channel."""
    d = float(shape.d_model)
    return Flops(matmul=8.0 * d * d, elementwise=2.0 * d + 2.0 * options.width * d)


def conv_state(options: ConvOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """The gated inputs that the next output needs, ``tail`` `[width - 1, D]`."""
    if options.width == 1:
        return ()
    tail = StateTensor(name="tail", row_shape=(shape.d_model,), dtype=shape.dtype, role="conv", base=options.width - 1)
    return (tail,)


def conv_traffic(options: ConvOptions, shape: ModelShape) -> Traffic:
    """The whole tail is read, and written one token on."""
    moved = float((options.width - 1) * shape.d_model * shape.dtype_bytes)
    return Traffic(read_bytes=moved, written_bytes=moved)
